"""Keeps the `TrustDomain` object as the rotation is, from the one replica that holds the Lease for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog

from ca.trust_domain import trust_domain_object, write
from kube.client import Client
from kube.write_behind import Counts, WriteBehind
from mesh.errors import HeddleError

LOOK_SECONDS = 2.0  # how old what is shown may be
CALM_SECONDS = 20.0  # the same while nothing is rotated
ANEW_SECONDS = 300.0  # after which it is written unchanged: somebody may have changed or removed it
WRITES_PER_SECOND = 2.0

log = structlog.get_logger("ca")


class TrustDomainKeeper:
    """`rotation()` is the body of `GET /v1/rotation`, `leads()` whether this replica is the one that writes."""

    def __init__(
        self, client: Client, trust_domain: str, rotation: Callable[[], Mapping[str, Any]], leads: Callable[[], bool]
    ) -> None:
        self._trust_domain, self._rotation, self._leads = trust_domain, rotation, leads
        self._queue: WriteBehind[Mapping[str, Any]] = WriteBehind(
            "TrustDomain", partial(write, client), limit=1, per_second=WRITES_PER_SECOND
        )
        self._shown: Mapping[str, Any] = {}
        self._since = 0.0
        self._woken = threading.Event()
        self._ended = False

    def start(self) -> None:
        self._queue.start()
        threading.Thread(target=self._run, name="trust-domain", daemon=True).start()

    def stop(self) -> None:
        self._ended = True
        self._woken.set()
        self._queue.stop()

    def wake(self) -> None:
        """Look now: the stored state has changed."""
        self._woken.set()

    @property
    def counts(self) -> tuple[int, Counts]:
        """How many writes wait, and what became of the others."""
        return len(self._queue), self._queue.counts

    def look(self) -> float:
        """Queue the object if it is this replica's to write and has changed; seconds until the next look."""
        if not self._leads():
            self._shown = {}  # whoever writes meanwhile may have written something else
            return LOOK_SECONDS
        try:
            body = trust_domain_object(self._trust_domain, self._rotation())
        except HeddleError as error:
            log.warning("the state of the rotation cannot be told of", error=str(error))
            return CALM_SECONDS
        if body != self._shown or self._since >= ANEW_SECONDS:
            self._queue.offer(self._trust_domain, body)
            self._shown, self._since = body, 0.0
        pause = LOOK_SECONDS if body["status"]["phase"] != "idle" else CALM_SECONDS
        self._since += pause
        return pause

    def _run(self) -> None:
        while not self._ended:
            self._woken.wait(self.look())
            self._woken.clear()
