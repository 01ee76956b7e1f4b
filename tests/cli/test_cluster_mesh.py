"""Many replicas' status as one, and how the components of a control plane stand. Pods are in tests/cluster."""

from __future__ import annotations

from typing import Any

import pytest

from cli.cluster_mesh import components, united
from cli.commands.status import of_proxies, table
from mesh.errors import NotFound, Unavailable


def proxy(pod: str, *, connected: bool, seen: str = "", current: bool = True) -> dict[str, Any]:
    types = {"clusters": {"upToDate": current, "since": seen, "rejected": []}} if seen else {}
    return {
        "namespace": "n",
        "pod": pod,
        "kind": "agent",
        "connected": connected,
        "lastSeen": seen,
        "failed": False,
        "upToDate": connected and current,
        "types": types,
    }


def answer(*proxies: dict[str, Any], observed: int = 7, problems: Any = ()) -> dict[str, Any]:
    return {"ready": False, "observed": observed, "proxies": list(proxies), "problems": list(problems)}


NEW, OLD = "2026-01-01T00:00:09Z", "2026-01-01T00:00:01Z"


def test_a_proxy_counts_where_it_is_connected() -> None:
    """To every other replica it is missing, or was seen before it went over to another."""
    one = answer(proxy("a", connected=True, seen=NEW), proxy("b", connected=False), proxy("c", connected=False))
    two = answer(proxy("a", connected=False, seen=OLD), proxy("b", connected=True, seen=OLD), observed=5)
    status = united({"d-1": one, "d-2": two}, {})
    assert [(each["pod"], each["connected"], each["replica"]) for each in status["proxies"]] == [
        ("a", True, "d-1"),
        ("b", True, "d-2"),
        ("c", False, ""),
    ]
    assert (status["ready"], status["observed"]) == (False, 5)
    shown = table(status)
    assert [line.split()[0::9] for line in shown.splitlines()[1:3]] == [["n/a"], ["n/b"]]
    assert "REPLICA" in shown
    assert "NOT CONNECTED n/c: it has not asked yet" in shown


def test_ready_when_no_proxy_is_missing_to_all() -> None:
    one, two = answer(proxy("a", connected=True, seen=NEW), proxy("b", connected=False)), answer()
    assert not united({"d-1": one, "d-2": two}, {})["ready"]
    two = answer(proxy("b", connected=True, seen=OLD), proxy("a", connected=False))
    assert united({"d-1": one, "d-2": two}, {})["ready"]
    behind = answer(proxy("b", connected=True, seen=OLD, current=False))
    assert not united({"d-1": one, "d-2": behind}, {})["ready"]


def test_a_replica_that_does_not_answer_is_named_and_the_others_are_shown() -> None:
    problem = {"object": "VirtualService n/v", "field": "spec.hosts", "message": "no such host", "hint": ""}
    one = answer(proxy("a", connected=True, seen=NEW), problems=[problem])
    two = answer(proxy("a", connected=False), problems=[problem])
    status = united({"d-1": one, "d-2": two}, {"d-3": Unavailable("it is ending", hint="wait")})
    assert not status["ready"]
    lines = table(status).splitlines()
    assert "PROBLEM d-3: it is ending (wait)" in lines
    assert sum("no such host" in line for line in lines) == 1
    assert not united({}, {})["ready"]


def pod(app: str, ready: bool) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"labels": {"app": app}}, "status": {"conditions": conditions}}


def test_components_say_how_many_of_their_pods_are_ready() -> None:
    pods = [pod("heddle-ca", True), pod("heddle-ca", True), pod("heddle-webhook", False), pod("heddle-webhook", True)]
    assert components([*pods, pod("istio-ingressgateway", False)]) == {
        "ca": "running",
        "discovery": "gone: it has no pod",
        "webhook": "in part there: 1 of 2 pods are ready",
    }


def test_a_name_chooses_proxies_and_what_ready_is_about() -> None:
    proxies = [proxy("web-1", connected=True, seen=NEW), proxy("web-2", connected=True, seen=NEW)]
    status = united({"d": answer(*proxies, proxy("db-1", connected=False))}, {})
    assert not status["ready"]
    for said, shown in (("web", ["web-1", "web-2"]), ("n/web-2", ["web-2"]), ("web-1", ["web-1"])):
        chosen = of_proxies(status, said, "")
        assert [each["pod"] for each in chosen["proxies"]] == shown
        assert chosen["ready"]
    assert not of_proxies(status, "db", "")["ready"]
    with pytest.raises(NotFound, match="no proxy of a pod web in namespace other"):
        of_proxies(status, "web", "other")
