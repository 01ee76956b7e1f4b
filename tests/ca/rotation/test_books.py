"""What was written down of certificates, beside what agents say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ca.callers import PodFacts
from ca.ledger import Ledger, Record
from ca.rotation.books import BY_VOLUME, LONGEST_PAUSE, Held, Reader, behind, held_of, holders, of_ledger, with_holders
from ca.rotation.decide import Member, advanced, sentence, waiting
from ca.rotation.members import ReplicaReport, Seen, members_of
from ca.rotation.state import Phase, Rotation, entered, started
from ca.workload_certificate import remembering, replacing, workload_certificate
from mesh.errors import Unavailable
from mesh.wire import TrustReport

NOW = 1_800_000_000
OLD, NEW = "aa", "bb"
RECORD = Record(
    serial="1",
    identity="spiffe://cluster.local/ns/apps/sa/a",
    caller=BY_VOLUME,
    pod_namespace="apps",
    pod_name="web",
    pod_uid="uid-web",
    node="n",
    key_kind="P-256",
    key_fingerprint="f" * 64,
    issuer="9",
    root=OLD,
    prepared_at=NOW,
    not_before=NOW - 60,
    not_after=NOW + 100,
)


def held(pod: str = "web", caller: str = BY_VOLUME, expires: float = NOW + 100) -> Held:
    return Held("apps", pod, f"uid-{pod}", OLD, caller, expires)


def there(*names: str) -> Any:
    """A lookup that knows the pods of these names."""

    def lookup(_namespace: str, name: str, _uid: str) -> PodFacts | None:
        return PodFacts(f"uid-{name}", "a", "n") if name in names else None

    return lookup


def draining() -> Rotation:
    state = started(Rotation(stays="old"), "new", 10, NOW)
    for phase in (Phase.SIGN, Phase.RENEW, Phase.DRAIN):
        state = entered(state, phase, NOW)
    return state


def test_whose_certificates_count() -> None:
    """A volume's always, an agent's where nobody speaks for it; and only those of pods that exist."""
    found = [held("web"), held("agent", "token"), held("silent", "token"), held("gone")]
    reader = Reader(lambda _root: found, there("web", "agent", "silent"), lambda: 0.0)
    assert [one.pod for one in reader.held(OLD, {"uid-agent", "uid-web"})] == ["web", "silent"]


@pytest.mark.parametrize(
    "facts", [PodFacts("another", "a", "n"), PodFacts("uid-web", "a", "n", finished=True)], ids=["another", "ended"]
)
def test_a_pod_of_the_same_name_and_one_that_has_ended_hold_nothing(facts: PodFacts) -> None:
    assert Reader(lambda _root: [held()], lambda *_: facts, lambda: 0.0).held(OLD, ()) == ()


def test_a_pod_that_ends_is_forgotten_at_once_and_the_books_are_read_ever_more_seldom() -> None:
    reads, pods, now = [], ["web"], 0.0

    def read(root: str) -> Iterator[Held]:
        reads.append(now)
        yield held()

    reader = Reader(read, lambda *where: there(*pods)(*where), lambda: now)
    while now < 300:
        assert reader.held(OLD, (), 7)
        now += 0.5
    assert reads[:5] == [0, 1, 3, 7, 15]
    assert len(reads) < 16
    assert reads[-1] - reads[-2] == LONGEST_PAUSE
    pods.clear()
    assert reader.held(OLD, (), 7) == ()
    for another in ((NEW, (), 7), (NEW, (), 8), (NEW, (), 0), (NEW, (), 0)):
        before = len(reads)
        reader.held(*another)
        assert len(reads) == before + 1, "what was read before another rotation says nothing"


def test_books_that_cannot_be_read_are_no_answer() -> None:
    def read(_root: str) -> Iterator[Held]:
        raise Unavailable("the API server is away")

    with pytest.raises(Unavailable):
        Reader(read, there(), lambda: 0.0).held(OLD, ())


def test_drain_waits_for_who_is_in_the_books() -> None:
    state = draining()
    said = (Member("apps/web", 2, 10, "new"), Member("apps/istio-ca-root-cert", 2, carrier=True))
    assert advanced(state, said, NOW).phase is Phase.RETIRE
    noted = holders([held(expires=NOW + 10), held(), held("silent", "token")], state, "old")
    members = with_holders(said, noted)
    assert advanced(state, members, NOW) is state
    found = waiting(state, members)
    assert (found.names, found.of) == (["apps/web", "apps/silent"], 3)
    told = sentence(state, found)
    assert "apps/web (its podCertificate volume has one of the root that leaves until 2027-01-15T08:01:40Z" in told
    assert "apps/silent (it has one, of which no agent tells," in told
    without = replace(state, excluded=("apps/web", "apps/silent"))
    assert advanced(without, members, NOW).phase is Phase.RETIRE


def test_books_that_lack_something_are_waited_for() -> None:
    state = draining()
    replicas = {name: ReplicaReport(TrustReport(2, order=10, root="new"), "new") for name in ("ca/0", "ca/1")}
    seen = Seen((), (), {}, replicas)
    assert behind(state, seen) == ()
    late = replace(seen, replicas={**replicas, "ca/1": replace(replicas["ca/1"], unwritten=3)})
    members = with_holders(members_of(late), behind(state, late))
    found = waiting(state, members)
    assert (found.names, found.of) == (["ca/1"], 2)
    assert "ca/1 (it has 3 certificates to write down)" in sentence(state, found)


def test_the_ledger_as_books() -> None:
    ledger = Ledger(None)
    for serial, change in enumerate(
        (
            {},
            {"pod_name": "other", "root": NEW},
            {"pod_name": "late", "not_after": NOW - 1},
            {"pod_name": "", "caller": "self"},
            {"pod_name": "failed"},
        )
    ):
        ledger.record(replace(RECORD, serial=f"{serial}", **change))  # type: ignore[arg-type]
    ledger.mark("4", issued=False)
    assert list(of_ledger(ledger, lambda: NOW)(OLD)) == [held()]


def test_objects_as_books() -> None:
    """A later certificate, of the agent in the same pod, does not hide the volume's; nor does a late note of one."""

    def told(**change: Any) -> dict[str, Any]:
        body = workload_certificate(replace(RECORD, **change), "ca-0")
        return {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}

    later = {"serial": "2", "caller": "token", "root": NEW, "prepared_at": NOW + 10, "not_after": NOW + 200}
    replaced = replacing(told(**later), told())
    remembered = {**told(**later), "spec": {**told(**later)["spec"], **remembering(told(), told(**later))["spec"]}}
    for item in (replaced, remembered):
        assert set(held_of(item)) == {held(), Held("apps", "web", "uid-web", NEW, "token", NOW + 200)}
    assert [one.uid for one in held_of(replacing(told(**later, pod_uid="next"), told()))] == ["next", "uid-web"]
    before = {**told(), "spec": {**told()["spec"], "earlier": [{"serial": "0", "expires": "2027-01-15T09:00:00Z"}]}}
    assert [one.root for one in held_of(before)] == [OLD, ""]
