"""One of several replicas acts: whoever holds a Lease.

A holder renews its Lease; another takes it when it has not seen it renewed for the Lease's own duration, by its own
clock, so that clocks need not agree. A holder that cannot renew stops acting before that.
Source: https://kubernetes.io/docs/concepts/architecture/leases/ (coordination.k8s.io/v1)
"""

from __future__ import annotations

import random as _random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from kube.client import Client, Refused
from mesh.errors import HeddleError, NotFound

DURATION_SECONDS = 15
RENEW_SECONDS = 4.0
MARGIN_SECONDS = 3.0

log = structlog.get_logger("kube")


class Leader:
    """Competes for the Lease `namespace`/`name` as `holder` (the pod's name). `monotonic`: seconds."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        holder: str,
        *,
        duration: int = DURATION_SECONDS,
        renew: float = RENEW_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._client, self._name, self.holder = client, name, holder
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._duration, self._renew = duration, renew
        self._monotonic, self._random = monotonic, random
        self._until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        self._stopping = threading.Event()

    @property
    def leads(self) -> bool:
        """Whether this replica may act now."""
        return self._monotonic() < self._until

    def start(self) -> None:
        """Compete in a thread until `stop`."""
        threading.Thread(target=self._run, name=f"lease-{self._name}", daemon=True).start()

    def stop(self) -> None:
        """Give the Lease back, so that another replica need not wait for its end."""
        led, self._until = self.leads, 0.0
        self._stopping.set()
        if led:
            try:
                self._put(self._client.get(f"{self._path}/{self._name}"), "", 1)
            except HeddleError as error:
                log.info("lease not given back", lease=self._name, error=str(error))

    def _run(self) -> None:
        while not self._stopping.is_set():
            led = self.leads
            try:
                self.compete()
            except HeddleError as error:
                log.warning("lease not renewed" if led else "lease not asked for", lease=self._name, error=str(error))
            if self.leads is not led:
                log.info("leads" if self.leads else "follows", lease=self._name, holder=self.holder)
            self._stopping.wait(self._renew * (0.9 + 0.2 * self._random()))

    def compete(self) -> None:
        """Renew or take the Lease, if it can be had."""
        now = self._monotonic()
        try:
            lease = self._client.get(f"{self._path}/{self._name}")
        except NotFound:
            body = {"metadata": {"name": self._name}, "spec": self._spec({}, self.holder, self._duration)}
            if self._won(lambda: self._client.post(self._path, body)):
                self._until = now + self._duration - MARGIN_SECONDS
            return
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") not in ("", None, self.holder) and not self._over(lease, spec, now):
            self._until = 0.0
            return
        if self._won(lambda: self._put(lease, self.holder, self._duration)):
            self._until = now + self._duration - MARGIN_SECONDS

    def _over(self, lease: Mapping[str, Any], spec: Mapping[str, Any], now: float) -> bool:
        """Whether the holder has let the Lease run out, counted from when it was first seen as it is."""
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._duration)

    def _put(self, lease: Mapping[str, Any], holder: str, duration: int) -> None:
        spec = self._spec(lease.get("spec") or {}, holder, duration)
        self._client.put(f"{self._path}/{self._name}", {**lease, "spec": spec})

    def _spec(self, before: Mapping[str, Any], holder: str, duration: int) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        same = before.get("holderIdentity") == holder
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": duration,
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if same or not before else 1),
        }

    def _won(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except Refused as error:
            if error.status != 409:
                raise
            self._until = 0.0  # another one was quicker
            return False
        return True
