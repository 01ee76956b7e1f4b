"""WorkloadCertificates that time, or an operator, has overtaken: not renewed in time, expired, or revoked.

Nobody issues anything then, so every replica looks through all objects now and then. Two that see the same do the same:
the second write finds another resourceVersion, or nothing to do. Needs the rights to `list` and `patch` them.
"""

from __future__ import annotations

import random as _random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

import structlog

from ca.oldest import Oldest
from ca.workload_certificate import COLLECTION, GROUP, PLURAL, VERSION
from kube.client import Client, Refused
from mesh.errors import HeddleError, NotFound
from mesh.heddle.workload_certificate import CertificateState
from svid.schedule import RENEW_UNTIL

EVERY_SECONDS = 300.0
WRITE_SECONDS = 0.01  # between two writes

log = structlog.get_logger("ca")


def state_at(spec: Mapping[str, Any], now: float, revoked: Collection[str] = ()) -> str:
    """The state of a certificate at `now` (Unix seconds): the one that it has, or Revoked, Renewing or Expired. Pure.

    `revoked`: the serials that are. One that was restored has lost what it was before, and is Issued.
    """
    state: str = spec["state"]
    if spec["serial"] in revoked:
        return CertificateState.Revoked
    if state == CertificateState.Revoked:
        state = CertificateState.Issued
    issued, expires = _seconds(spec["issued"]), _seconds(spec["expires"])
    if now >= expires:
        return CertificateState.Expired
    if now >= issued + RENEW_UNTIL * (expires - issued):
        return CertificateState.Renewing
    return state


class CertificateStates:
    """Looks through the objects every `EVERY_SECONDS`, give or take a half, and after `wake`, from `start` to `stop`.

    `revoked()`: the serials that are. `oldest` is shown them all.
    """

    def __init__(
        self,
        client: Client,
        random: Callable[[], float] = _random.random,
        revoked: Callable[[], Collection[str]] = frozenset,
        oldest: Oldest | None = None,
    ) -> None:
        self._client, self._random, self._revoked, self._oldest = client, random, revoked, oldest
        self._stopping = threading.Event()
        self._awake = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="certificate-states", daemon=True).start()

    def wake(self) -> None:
        """Look now: something was revoked or restored."""
        self._awake.set()

    def stop(self) -> None:
        self._stopping.set()
        self._awake.set()

    def look(self, now: float) -> int:
        """Write the state of each that has another at `now`; how many were written. Raises when there is no list."""
        written, revoked = 0, self._revoked()
        for page in self._client.list(COLLECTION):
            for item in page.items:
                if self._oldest is not None:
                    self._oldest.take(item)
                state = state_at(item["spec"], now, revoked)
                if state != item["spec"]["state"] and not self._stopping.is_set():
                    written += self._write(item["metadata"], state)
                    self._stopping.wait(WRITE_SECONDS)
        if self._oldest is not None:
            self._oldest.all_taken()
        return written

    def _write(self, metadata: Mapping[str, Any], state: str) -> int:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{metadata['namespace']}/{PLURAL}/{metadata['name']}"
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"state": state}}
        try:
            self._client.merge(path, patch)
        except NotFound:  # its pod is gone
            return 0
        except Refused as error:
            if error.status != 409:  # renewed, or written by another replica
                raise
            return 0
        return 1

    def _run(self) -> None:
        while True:
            self._awake.wait(EVERY_SECONDS * (0.5 + self._random()))
            self._awake.clear()
            if self._stopping.is_set():
                return
            try:
                self.look(time.time())
            except HeddleError as error:
                log.warning("the states of WorkloadCertificates are not kept at the moment", error=str(error))
            except Exception:  # a bug on one object must not end the looking
                log.exception("the states of WorkloadCertificates are not kept at the moment")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
