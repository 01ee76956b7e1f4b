"""Who counts, and what each is said to have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ca.rotation.decide import Member, sentence, waiting
from ca.rotation.members import AgentReport, Living, ReplicaReport, Seen, living_of, members_of
from ca.rotation.state import Phase, Rotation, started
from mesh.wire import TrustReport

STATUS = "sidecar.istio.io/status"
RUNS = {"state": {"running": {}}}


def raw(
    name: str, *, account: str = "a", namespace: str = "apps", sidecar: bool = True, **status: Any
) -> dict[str, Any]:
    annotations = {STATUS: "{}"} if sidecar else {}
    containers = [{"name": "main", "ports": [{"name": "https", "containerPort": 15013}]}]
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}", "annotations": annotations},
        "spec": {"serviceAccountName": account, "containers": containers},
        "status": status,
    }


def living(name: str, **more: Any) -> Living:
    container = "istio-proxy" if more.get("sidecar", True) else "main"
    more.setdefault("containerStatuses", [{"name": container, **RUNS}])
    found = living_of(raw(name, **more))
    assert found is not None
    return found


def control(name: str, account: str) -> Living:
    return living(name, account=account, namespace="istio-system", sidecar=False)


def agent(name: str, report: TrustReport | None, *, connected: bool = True, uid: str = "") -> AgentReport:
    return AgentReport(f"apps/{name}", uid or f"uid-{name}", connected, report, "0.1.0")


def by_name(seen: Seen) -> dict[str, Member]:
    return {member.name: member for member in members_of(seen)}


@pytest.mark.parametrize(
    ("status", "started"),
    [
        ({}, False),
        ({"containerStatuses": [{"name": "istio-proxy", "state": {"waiting": {}}}]}, False),
        ({"containerStatuses": [{"name": "app", **RUNS}]}, False),
        ({"initContainerStatuses": [{"name": "istio-proxy", **RUNS}]}, True),
        ({"containerStatuses": [{"name": "istio-proxy", "state": {"waiting": {}}, "lastState": {"x": {}}}]}, True),
    ],
)
def test_a_pod_counts_once_its_sidecar_has_run(status: dict[str, Any], started: bool) -> None:
    pod = living_of(raw("web", **status))
    assert pod is not None
    assert pod.started is started
    assert ("apps/web" in by_name(Seen((pod,), (), {}, {}))) is started


def test_one_that_never_started_counts_once_its_agent_speaks() -> None:
    pod = living_of(raw("web"))
    assert pod is not None
    seen = Seen((pod,), (agent("web", TrustReport(1)),), {}, {})
    assert by_name(seen)["apps/web"].sequence == 1


def test_what_has_ended_does_not_live() -> None:
    assert living_of(raw("job", phase="Succeeded")) is None


def test_why_an_agent_says_nothing() -> None:
    pods = tuple(living(name) for name in ("old", "away", "gone", "other"))
    reports = (
        agent("old", None),
        agent("gone", TrustReport(1), connected=False),
        agent("other", TrustReport(1), uid="x"),
    )
    found = by_name(Seen(pods, reports, {}, {}))
    assert "too old" in found["apps/old"].trouble
    assert "not connected" in found["apps/away"].trouble
    assert found["apps/gone"].sequence == 1
    assert found["apps/other"].sequence is None  # an earlier pod of that name said it
    silent = by_name(Seen(pods, (), {}, {}, troubles={"discovery": "timed out"}))
    assert silent["apps/away"].trouble == "discovery cannot be asked: timed out"


def test_the_session_that_an_agent_has_now_counts() -> None:
    left, current = agent("web", TrustReport(1, order=1), connected=False), agent("web", TrustReport(2, order=2))
    for reports in ((left, current), (current, left)):
        assert by_name(Seen((living("web"),), reports, {}, {}))["apps/web"].order == 2


def test_components_and_replicas() -> None:
    pods = (
        control("heddle-ca-0", "heddle-ca"),
        control("heddle-ca-1", "heddle-ca"),
        control("heddle-webhook-0", "heddle-webhook"),
        control("canary-0", "heddle-webhook-canary"),
        control("prometheus-0", "prometheus"),
    )
    own = ReplicaReport(TrustReport(2, root="aa"), "bb")
    said = {"istio-system/heddle-webhook-0": TrustReport(2)}
    troubles = {"istio-system/heddle-ca-1": "connection refused"}
    found = by_name(Seen(pods, (), said, {"istio-system/heddle-ca-0": own}, troubles=troubles))
    assert found["istio-system/heddle-ca-0"] == Member("istio-system/heddle-ca-0", 2, 0, "aa", ca=True, signs="bb")
    assert found["istio-system/heddle-ca-1"].trouble == "connection refused"
    assert found["istio-system/heddle-webhook-0"].sequence == 2
    assert found["istio-system/canary-0"].sequence is None
    assert "istio-system/prometheus-0" not in found


def test_what_carries_the_roots_counts_and_has_no_certificate() -> None:
    maps = {"apps/istio-ca-root-cert": 2, "late/istio-ca-root-cert": 1, "none/istio-ca-root-cert": None}
    replicas = {
        "istio-system/heddle-ca": ReplicaReport(TrustReport(2, 5, root="bb"), "bb", published=0),
        "istio-system/heddle-ca-1": ReplicaReport(TrustReport(2, 5, root="bb"), "bb", published=2),
    }
    seen = Seen((), (), {}, replicas, carriers=maps)
    state = started(Rotation(stays="aa"), "bb", 10, 0)
    missing = waiting(state, members_of(seen)).missing
    assert [(each.name, each.trouble) for each in missing if each.carrier] == [
        ("late/istio-ca-root-cert", ""),
        ("none/istio-ca-root-cert", "the bundle's roots are not in it"),
    ]
    assert by_name(seen)["clustertrustbundle/heddle.dev:spiffe:roots"].sequence == 2
    none_yet = {title: replace(said, published=0) for title, said in replicas.items()}
    found = by_name(replace(seen, replicas=none_yet))
    assert found["clustertrustbundle/heddle.dev:spiffe:roots"].sequence is None
    draining = replace(state, phase=Phase.DRAIN)
    assert all(not each.carrier or each.sequence != 2 for each in waiting(draining, members_of(seen)).missing)


def test_without_pods_components_are_known_by_name() -> None:
    own = ReplicaReport(TrustReport(1), "bb")
    seen = Seen((), (), {}, {"istio-system/heddle-ca": own}, expected=("istio-system/heddle-webhook",))
    assert set(by_name(seen)) == {"istio-system/heddle-ca", "istio-system/heddle-webhook"}


def test_who_is_missing_is_named_and_who_is_excluded_is_not_waited_for() -> None:
    state = started(Rotation(stays="aa"), "bb", 10, 0)
    members = (Member("a/1", 2), Member("a/2", 1), Member("a/3", trouble="its agent is away"))
    found = waiting(state, members)
    assert (found.have, found.of, found.names) == (1, 3, ["a/2", "a/3"])
    assert sentence(state, found).startswith("a/2, a/3 (its agent is away) to acknowledge bundle 2")
    without = waiting(Rotation(**{**_fields(state), "excluded": ("a/2", "a/3")}), members)
    assert (without.have, without.of, without.excluded) == (1, 1, ("a/2", "a/3"))


def _fields(state: Rotation) -> dict[str, Any]:
    return {name: getattr(state, name) for name in Rotation.__slots__}
