"""One installation at a time: a Lease in the control plane's namespace, held while something is changed.

Source: https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from install.resources import LEASE
from kube.client import Client, Refused
from mesh.errors import Conflict, HeddleError, NotFound

NAME = "heddle-install"
LASTS_SECONDS = 60
RENEW_SECONDS = 15


class Lock:
    """`holder` is who does it, for people. Use as a context manager; `renew` now and then, at least once a minute."""

    def __init__(self, client: Client, namespace: str, holder: str, now: Callable[[], datetime]) -> None:
        self._client, self._holder, self._now = client, holder, now
        self._namespace = namespace
        self._path = LEASE.path(namespace, NAME)
        self._lease: dict[str, Any] | None = None
        self._renewed = datetime.min.replace(tzinfo=UTC)

    def __enter__(self) -> Lock:
        """Conflict, which says who, when somebody else holds it."""
        try:
            self._lease = self._client.post(LEASE.path(self._namespace), self._body())
        except Refused as error:
            if error.status != 409:
                raise
            self._take_over()
        self._renewed = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lease is None:
            return
        try:
            self._client.delete(self._path, uid=self._lease["metadata"]["uid"])
        except HeddleError:
            return  # it ends by itself

    def renew(self) -> None:
        """Conflict when it was lost to somebody else."""
        if self._lease is None or self._now() - self._renewed < timedelta(seconds=RENEW_SECONDS):
            return
        body = self._body()
        body["metadata"]["resourceVersion"] = self._lease["metadata"]["resourceVersion"]
        try:
            self._lease = self._client.put(self._path, body)
        except (Refused, NotFound) as error:
            self._lease = None
            raise Conflict(f"somebody else took the lock of this installation: {error}") from None
        self._renewed = self._now()

    def _take_over(self) -> None:
        """The lock of one that died is free after a minute."""
        try:
            found = self._client.get(self._path)
        except NotFound:
            raise Conflict("another installation has just ended", hint="try again") from None
        if conflict := _held(found, self._now()):
            raise conflict
        body = self._body()
        body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        try:
            self._lease = self._client.put(self._path, body)
        except Refused as error:
            raise Conflict(f"another installation began at the same moment: {error}", hint="try again") from None

    def _body(self) -> dict[str, Any]:
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        began = (self._lease or {}).get("spec", {}).get("acquireTime", now)
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": NAME, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": LASTS_SECONDS,
                "acquireTime": began,
                "renewTime": now,
            },
        }


def at_work(client: Client, namespace: str, now: datetime) -> Conflict | None:
    """Who changes the installation at this moment, since when, and what to do; None when nobody does."""
    try:
        return _held(client.get(LEASE.path(namespace, NAME)), now)
    except NotFound:
        return None


def _held(lease: Mapping[str, Any], now: datetime) -> Conflict | None:
    spec = lease.get("spec") or {}
    ends = (_time(spec.get("renewTime")) or now) + timedelta(seconds=spec.get("leaseDurationSeconds") or LASTS_SECONDS)
    if ends <= now:
        return None
    began, holder = _time(spec.get("acquireTime")), spec.get("holderIdentity") or "somebody"
    since = f"{began:%Y-%m-%d %H:%M:%S} UTC, {round((now - began).total_seconds())} s ago" if began else "some time"
    left = max(1, round((ends - now).total_seconds()))
    says = f"another command is at work on this installation: {holder}, since {since}"
    return Conflict(says, hint=f"wait until it is done, then try again; if it died, its lock is free in {left} s")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
