"""Discovery as a real process: HTTPS with client certificates, held polls, status; over the engine's API."""

from __future__ import annotations

import socket
import ssl
import time
from http.client import HTTPSConnection
from typing import Any

import pytest

from tests.discovery.harness import (
    ROLE,
    Agent,
    Cluster,
    DiscoveryProcess,
    Held,
    Json,
    agent_a,
    agent_b,
    exchange,
    pod,
    settled,
    virtual_service,
)
from tests.support.certificates import Authority

A = ("default", "a")


def test_a_proxy_gets_everything_then_only_what_changed(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    assert {"clusters", "endpoints", "listeners", "routes", "virtualHosts"} <= agent.has.keys()
    held = Held(agent.poll)
    cluster.put(virtual_service("v", "b", "/x"))
    status, body = held.wait()
    assert status == 200
    assert list(body["changed"]) == ["virtualHosts"]
    assert list(body["changed"]["virtualHosts"]) == ["80/b.default.svc.cluster.local:80"]
    cluster.delete("VirtualService", "default", "v")
    status, body = agent.poll()
    assert list(body["changed"]) == ["virtualHosts"]


def test_what_goes_is_removed(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    cluster.delete("Service", "default", "b")
    _, body = agent.poll()
    assert body["removed"]["clusters"] == ["outbound|80||b.default.svc.cluster.local"]
    assert "80/b.default.svc.cluster.local:80" in body["removed"]["virtualHosts"]


def test_a_change_wakes_only_those_whom_it_concerns(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    one, other = settled(agent_a(discovery)), settled(agent_b(discovery))
    held = Held(lambda: other.poll(1.0))
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "mtls": {"mode": "STRICT"}},
    }
    cluster.put(strict)
    assert one.poll()[0] == 200
    assert held.wait() == (204, None)


def test_a_lost_answer_comes_again(discovery: DiscoveryProcess) -> None:
    agent = agent_a(discovery)
    status, body = exchange(agent._connection, "POST", "/v1/config", agent.request(5))
    assert status == 200
    agent.session = body["session"]
    status, again = agent.poll()
    assert status == 200
    assert again["changed"] == body["changed"]


def test_another_session_ends_the_one_before(discovery: DiscoveryProcess) -> None:
    first = settled(agent_a(discovery))
    held = Held(first.poll)
    time.sleep(0.2)
    assert agent_a(discovery).poll()[0] == 200
    assert held.wait()[0] == 410


def test_a_later_poll_of_a_session_frees_the_earlier(discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    held = Held(agent.poll)
    time.sleep(0.2)
    other = agent_a(discovery)
    other.session, other.sequence = agent.session, agent.sequence
    assert other.poll(0.1)[0] == 204
    assert held.wait()[0] == 204


def test_a_deleted_pod_ends_its_session(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    held = Held(agent.poll)
    time.sleep(0.1)
    cluster.delete("Pod", "default", "a-0")
    assert held.wait()[0] == 410
    assert agent.poll(0.1)[0] == 404
    assert [proxy["pod"] for proxy in discovery.status()["proxies"]] == ["b-0"]


def test_a_pod_that_is_on_its_way_is_waited_for(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    agent = Agent(discovery, "late", "10.244.0.9", account="a")
    held = Held(agent.poll)
    time.sleep(0.2)
    cluster.put(pod("late", "", account="a"))
    time.sleep(0.1)
    cluster.put(pod("late", "10.244.0.9", account="a"))
    assert held.wait()[0] == 200


def test_a_pod_of_the_same_name_but_another_address_is_not_it(discovery: DiscoveryProcess) -> None:
    status, body = Agent(discovery, "a-0", "10.244.0.77", account="a").poll(0.1)
    assert status == 404
    assert "10.244.0.77" in body["error"]["message"]


def test_a_proxy_can_ask_only_for_itself(discovery: DiscoveryProcess) -> None:
    thief = Agent(discovery, "a-0", "10.244.0.1", account="b")
    status, body = thief.poll()
    assert status == 403
    assert body["error"]["field"] == "proxy.pod"
    assert "sa/b asked for the configuration of the pod default/a-0, which runs as" in body["error"]["message"]
    victim = settled(agent_a(discovery))
    thief.session, thief.sequence = victim.session, victim.sequence
    assert thief.poll()[0] == 403
    own = agent_b(discovery)
    own.session, own.sequence = victim.session, victim.sequence
    assert own.poll()[0] == 410, "somebody else's session is as unknown as one that never was"


def test_another_trust_domain_is_another_identity(discovery: DiscoveryProcess) -> None:
    agent = agent_a(discovery)
    context = discovery.client_context(discovery.authority, "spiffe://other.example/ns/default/sa/a")
    agent._connection = HTTPSConnection("127.0.0.1", discovery.port, context=context)
    assert agent.poll()[0] == 403


@pytest.mark.parametrize("uri", ["", "https://example.com", "spiffe://cluster.local/ns/default"])
def test_a_certificate_that_names_no_workload(discovery: DiscoveryProcess, uri: str) -> None:
    context = discovery.client_context(discovery.authority, uri or "spiffe://x")
    connection = HTTPSConnection("127.0.0.1", discovery.port, context=context)
    status, body = exchange(connection, "GET", "/v1/status")
    assert (status, body["error"]["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("authority", [None, Authority("a stranger")], ids=["none", "stranger"])
def test_without_a_certificate_of_the_mesh_there_is_no_connection(
    discovery: DiscoveryProcess, authority: Authority | None
) -> None:
    context = discovery.client_context(authority, ROLE.format("default", "a"))
    connection = HTTPSConnection("127.0.0.1", discovery.port, context=context, timeout=60)
    with pytest.raises(OSError):  # noqa: PT011  # which one depends on when OpenSSL sees the alert
        exchange(connection, "GET", "/v1/status")


def test_no_tls_before_1_3(discovery: DiscoveryProcess) -> None:
    context = discovery.client_context(discovery.authority, ROLE.format(*A))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", discovery.port)) as plain:
        context.wrap_socket(plain)


def config(**change: Any) -> Json:
    return {"proxy": {"namespace": "default", "pod": "a-0", "ip": ""}, "holdSeconds": 0, **change}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"not json", 400, "body"),
        (b"[]", 400, "body"),
        ({}, 400, "proxy"),
        ({"proxy": {"namespace": "default"}}, 400, "proxy.pod"),
        (config(holdSeconds=1000), 400, "holdSeconds"),
        (config(sequence=-1), 400, "sequence"),
        (config(versions={"clusters": {"a": 1}}), 400, "versions.clusters"),
        (config(applied={"clusters": {"rejected": 1}}), 400, "applied.clusters.rejected"),
        (config(session="unknown"), 410, "session"),
        (config(proxy={"namespace": "default", "pod": "nobody"}), 404, "proxy.pod"),
        (b" " * (17 << 20), 413, None),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("path", ["/v1/config", "/v1/report"])
def test_requests_that_are_wrong(discovery: DiscoveryProcess, path: str, body: Any, status: int, field: str) -> None:
    found, answer = discovery.call("POST", path, body, who=A)
    assert found == status
    assert answer["error"]["message"]
    assert answer["error"].get("field") == field


def test_other_wrong_requests(discovery: DiscoveryProcess) -> None:
    connection = HTTPSConnection("127.0.0.1", discovery.port, context=discovery.context(*A))
    connection.request("POST", "/v1/config", b"{}", {"Content-Type": "text/plain"})
    assert connection.getresponse().status == 415
    assert discovery.call("GET", "/nowhere")[0] == 404
    assert discovery.call("HEAD", "/v1/status") == (200, None)
    assert discovery.call("POST", "/v1/status", {})[0] == 405
    status, body = discovery.call("GET", "/v1/config")
    assert (status, body["error"]["code"]) == (405, "method-not-allowed")
    for query in ("?wait=x", "?wait=-1", "?wait=61", "?observed=nan"):
        status, body = discovery.call("GET", f"/v1/status{query}")
        assert status == 400
        assert body["error"]["field"] in ("wait", "observed")


def test_status_and_plans_are_for_operators(discovery: DiscoveryProcess) -> None:
    for path in ("/v1/status", "/v1/plan/default/a-0"):
        status, body = discovery.call("GET", path, who=A)
        assert (status, body["error"]["code"]) == (403, "forbidden")
    settled(agent_a(discovery))
    status, plan = discovery.call("GET", "/v1/plan/default/a-0")
    assert status == 200
    assert plan["proxy"]["pod"] == "a-0"
    assert "Service" in {origin["kind"] for each in plan["destinations"] for origin in each.get("origins", ())}
    assert discovery.call("GET", "/v1/plan/default/nobody")[0] == 404


def test_a_client_that_hangs_blocks_nobody(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    silent = [socket.create_connection(("127.0.0.1", discovery.port)) for _ in range(30)]
    half = discovery.context(*A).wrap_socket(socket.create_connection(("127.0.0.1", discovery.port)))
    half.sendall(
        b"POST /v1/config HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    )
    deaf = settled(agent_b(discovery))
    deaf._connection.request("POST", "/v1/config", b"{}", {"Content-Type": "application/json"})  # never reads
    agent = settled(agent_a(discovery))
    cluster.put(virtual_service("v", "b", "/x"))
    assert agent.poll()[0] == 200
    for each in (*silent, half):
        each.close()
