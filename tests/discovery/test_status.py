"""What operators see: applied against current, problems, and when a change was applied by all."""

from __future__ import annotations

import pytest

from tests.discovery.harness import (
    Agent,
    Cluster,
    DiscoveryProcess,
    Json,
    exchange,
    pod,
    virtual_service,
)


@pytest.fixture
def agents(discovery: DiscoveryProcess) -> list[Agent]:
    """Both, with everything applied."""
    found = [Agent(discovery, f"{name}-0", f"10.244.0.{n}", account=name) for n, name in enumerate("ab", 1)]
    for agent in found:
        agent.poll()
        agent.poll(0)
    return found


def proxy(status: Json, name: str) -> Json:
    (found,) = (each for each in status["proxies"] if each["pod"] == name)
    assert isinstance(found, dict)
    return found


def test_ready_when_all_have_applied(discovery: DiscoveryProcess, agents: list[Agent]) -> None:
    status = discovery.status()
    assert status["ready"]
    assert status["problems"] == []
    a = proxy(status, "a-0")
    assert a["upToDate"]
    assert a["identity"] == "spiffe://cluster.local/ns/default/sa/a"
    assert a["types"]["clusters"]["applied"] == a["types"]["clusters"]["current"]


def test_a_proxy_that_never_came_is_seen(cluster: Cluster, discovery: DiscoveryProcess, agents: list[Agent]) -> None:
    cluster.put(pod("c-0", "10.244.0.3"))
    finished = pod("job", "10.244.0.4")
    finished["status"]["phase"] = "Succeeded"
    version = cluster.put(finished)
    for agent in agents:
        agent.poll(0.3)
    status = discovery.status(f"?observed={version}&kind=Pod&wait=20")
    assert not status["ready"]
    assert not proxy(status, "c-0")["connected"]
    assert {each["pod"] for each in status["proxies"]} == {"a-0", "b-0", "c-0"}


def test_what_is_on_its_way_and_what_is_refused(
    cluster: Cluster, discovery: DiscoveryProcess, agents: list[Agent]
) -> None:
    agent = agents[0]
    cluster.put(virtual_service("v", "b", "/x"))
    status, body = exchange(agent._connection, "POST", "/v1/config", agent.request(20))
    assert status == 200
    waiting = proxy(discovery.status(), "a-0")["types"]["virtualHosts"]
    assert waiting["applied"] != waiting["current"]
    before = agent.applied["routes"]
    agent.take(body)
    words = "Proto constraint validation failed"
    agent.applied["virtualHosts"] = {
        "sequence": before["sequence"],
        "since": before["since"],
        "rejected": [{"name": "80", "message": words, "since": "2026-01-01T00:00:01Z"}],
    }
    assert exchange(agent._connection, "POST", "/v1/report", agent.request(0))[0] == 204
    found = discovery.status()
    assert not found["ready"]
    assert proxy(found, "a-0")["types"]["virtualHosts"]["rejected"][0]["message"] == words
    assert 'pilot_total_xds_rejects{type="rds"} 1.0' in discovery.health("/metrics")[1]
    cluster.delete("VirtualService", "default", "v")
    assert agent.poll()[0] == 200
    agent.poll(0)
    agents[1].poll(0)
    assert discovery.status()["ready"]


def test_wait_for_a_change_to_be_applied_by_all(
    cluster: Cluster, discovery: DiscoveryProcess, agents: list[Agent]
) -> None:
    version = cluster.put(virtual_service("v", "b", "/x"))
    unapplied = discovery.status(f"?observed={version}&kind=VirtualService&wait=0.2")
    assert unapplied["applied"] is False
    for agent in agents:
        assert agent.poll()[0] == 200
        assert agent.poll(0)[0] == 204
    applied = discovery.status(f"?observed={version}&kind=VirtualService&wait=20")
    assert applied["ready"]
    assert applied["applied"] is True
    assert applied["appliedSeconds"] > 0
    assert applied["observed"] >= version


def test_a_change_that_concerns_nobody_is_applied_at_once(
    cluster: Cluster, discovery: DiscoveryProcess, agents: list[Agent]
) -> None:
    version = cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "empty"}})
    held = discovery.status(f"?observed={version}&kind=Namespace&wait=0")
    for agent in agents:
        assert agent.poll(0.5)[0] == 204
    status = discovery.status(f"?observed={version}&kind=Namespace&wait=20")
    assert status["applied"]
    assert status["ready"]
    assert held["problems"] == []


def test_no_proxies_are_nothing_behind(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    for name in ("a-0", "b-0"):
        version = cluster.delete("Pod", "default", name)
    status = discovery.status(f"?observed={version}&kind=Pod&wait=20")
    assert status["ready"]
    assert status["applied"]
    assert status["proxies"] == []


def test_a_bad_object_is_named_and_the_rest_goes_on(
    cluster: Cluster, discovery: DiscoveryProcess, agents: list[Agent]
) -> None:
    agent = agents[0]
    cluster.put(virtual_service("good", "b", "/x"))
    assert agent.poll()[0] == 200
    before = agent.has["virtualHosts"]["80/b.default.svc.cluster.local:80"]
    bad = virtual_service("good", "b", "/y")
    bad["spec"]["http"][0]["rute"] = []
    cluster.put(bad)
    cluster.put(virtual_service("other", "a", "/z"))
    status, body = agent.poll()
    assert status == 200
    assert list(body["changed"]["virtualHosts"]) == ["80/a.default.svc.cluster.local:80"]
    assert agent.has["virtualHosts"]["80/b.default.svc.cluster.local:80"] == before
    (problem,) = discovery.status()["problems"]
    assert problem["object"] == "VirtualService default/good"
    assert problem["field"] == "spec.http[0].rute"
    assert problem["effect"] == "its last good version stays in force"
    cluster.put(virtual_service("good", "b", "/y"))
    assert agent.poll()[0] == 200
    assert discovery.status()["problems"] == []


def test_problems_of_plans_are_told_once(cluster: Cluster, discovery: DiscoveryProcess, agents: list[Agent]) -> None:
    cluster.put(virtual_service("v", "missing", "/x"))
    for agent in agents:
        agent.poll(2)
    problems = [each for each in discovery.status()["problems"] if "missing" in each["message"]]
    assert problems
    assert len({str(each) for each in problems}) == len(problems)
    assert all(each["hint"] for each in problems)
