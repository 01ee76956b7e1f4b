"""When the first of the certificates in use ends: of those that agents renew, and of those in `podCertificate` volumes.

Agents tell Prometheus of their own. Of a volume nobody does: its files are the kubelet's to renew, and a pod without a
sidecar has no port for it. What counts is the newest certificate of each pod that runs, for each of the two kinds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ca.callers import PodLookup
from ca.ledger import Ledger
from ca.rotation.books import BY_VOLUME, Held, held_of

AGENT, VOLUME = "agent", "volume"
OVERDUE_SECONDS = 3600.0  # for which a ledger's certificate counts that has ended and was not renewed


def newest_ends(held: Iterable[Held], pods: PodLookup) -> dict[tuple[str, str], float]:
    """By uid of a pod that runs and AGENT or VOLUME: when its newest certificate ends (Unix seconds)."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for one in held:
        holder = one.uid, VOLUME if one.caller == BY_VOLUME else AGENT
        if one.expires > found.get(holder, 0.0) and _runs(one, pods):
            found[holder] = one.expires
    return found


class Oldest:
    """Of the WorkloadCertificates that somebody else goes through: each is shown to `take`, then `all_taken` is called.

    `pods` is asked once for each, so it should not have to ask in its turn.
    """

    def __init__(self, pods: PodLookup) -> None:
        self._pods = pods
        self._next: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        """By AGENT or VOLUME, as of the last time that all were taken."""

    def take(self, item: Mapping[str, Any]) -> None:
        """One object, which has all certificates of its pod."""
        _lower(self._next, newest_ends(held_of(item), self._pods))

    def all_taken(self) -> None:
        self.ends, self._next = self._next, {}


def of_ledger(ledger: Ledger, pods: PodLookup, now: Callable[[], float]) -> Callable[[], dict[str, float]]:
    """The same by the books of a ca that is alone: by AGENT or VOLUME, at each call."""

    def ends() -> dict[str, float]:
        found: dict[str, float] = {}
        records = (record for record in ledger.list(valid_at=now() - OVERDUE_SECONDS) if record.state != "failed")
        _lower(
            found,
            newest_ends(
                (Held(r.pod_namespace, r.pod_name, r.pod_uid, r.root, r.caller, r.not_after) for r in records), pods
            ),
        )
        return found

    return ends


def _lower(found: dict[str, float], ends: Mapping[tuple[str, str], float]) -> None:
    for (_, holder), end in ends.items():
        found[holder] = min(end, found.get(holder, end))


def _runs(one: Held, pods: PodLookup) -> bool:
    facts = pods(one.namespace, one.pod, one.uid)
    return facts is not None and facts.uid == one.uid and not facts.finished and not facts.deleting
