"""The certificates in use whose end comes first, those in volumes counted too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ca.callers import PodFacts
from ca.ledger import Ledger
from ca.oldest import AGENT, VOLUME, Oldest, of_ledger
from ca.rotation.books import BY_VOLUME
from tests.ca.test_ledger import RECORD

PODS = {
    "web-1": PodFacts("uid-1", "web", "node-1"),
    "web-2": PodFacts("uid-2", "web", "node-1"),
    "job-1": PodFacts("uid-3", "job", "node-1", finished=True),
    "old-1": PodFacts("uid-4", "web", "node-1", deleting=True),
    "new-1": PodFacts("another uid", "web", "node-1"),
}


def known(_namespace: str, name: str, _uid: str) -> PodFacts | None:
    return PODS.get(name)


def told_of(pod: str, uid: str, caller: str, expires: str, *earlier: tuple[str, str]) -> dict[str, Any]:
    """A WorkloadCertificate; `earlier`: caller and end."""
    kept = [{"caller": by, "expires": end, "uid": uid} for by, end in earlier]
    return {
        "metadata": {"namespace": "shop", "name": pod, "ownerReferences": [{"uid": uid}]},
        "spec": {"caller": caller, "expires": expires, "earlier": kept},
    }


def at(hour: int) -> str:
    return f"1970-01-01T{hour:02}:00:00Z"


@pytest.mark.parametrize(
    ("items", "hours"),
    [
        ([], {}),
        ([told_of("web-1", "uid-1", "token", at(9), ("token", at(3)))], {AGENT: 9}),
        # Renewed or not, it is of the volume: an agent's certificate in the same pod takes nothing from it.
        ([told_of("web-1", "uid-1", "token", at(9), (BY_VOLUME, at(5)), (BY_VOLUME, at(4)))], {AGENT: 9, VOLUME: 5}),
        ([told_of("web-1", "uid-1", BY_VOLUME, at(9)), told_of("web-2", "uid-2", BY_VOLUME, at(8))], {VOLUME: 8}),
        ([told_of(pod, uid, BY_VOLUME, at(1)) for pod, uid in (("job-1", "uid-3"), ("old-1", "uid-4"))], {}),
        ([told_of("new-1", "uid-5", BY_VOLUME, at(1)), told_of("gone", "uid-6", "token", at(1))], {}),
    ],
)  # fmt: skip
def test_by_objects(items: list[dict[str, Any]], hours: dict[str, int]) -> None:
    oldest = Oldest(known)
    for item in items:
        oldest.take(item)
    assert oldest.ends == {}
    oldest.all_taken()
    assert oldest.ends == {holder: hour * 3600.0 for holder, hour in hours.items()}
    oldest.all_taken()  # of nothing: they are all gone
    assert oldest.ends == {}


def test_by_a_ledger() -> None:
    ledger = Ledger(None)
    issued = [
        ("a", "web-1", "token", 30_000, True),
        ("b", "web-1", "certificate", 50_000, True),
        ("c", "web-2", "token", 40_000, True),
        ("d", "web-2", "token", 60_000, False),
        ("e", "", "token", 20_000, True),
    ]
    for serial, pod, caller, end, well in issued:
        uid = PODS[pod].uid if pod else ""
        ledger.record(replace(RECORD, serial=serial, pod_name=pod, pod_uid=uid, caller=caller, not_after=end))
        ledger.mark(serial, issued=well)
    assert of_ledger(ledger, known, lambda: 41_000.0)() == {AGENT: 40_000.0}  # it has ended, and counts yet
    assert of_ledger(ledger, known, lambda: 45_000.0)() == {AGENT: 50_000.0}
