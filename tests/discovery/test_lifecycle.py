"""Discovery stops, is killed, starts again, and its certificate changes: each test with a process of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.discovery.harness import (
    HOME,
    OPERATOR,
    ROLE,
    Cluster,
    DiscoveryProcess,
    Held,
    agent_a,
    exchange,
    service,
    settled,
    small_mesh,
)
from tests.support.certificates import Authority


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        running.put(*small_mesh())
        yield running


@pytest.fixture
def discovery(cluster: Cluster, tmp_path: Path) -> Iterator[DiscoveryProcess]:
    with DiscoveryProcess(cluster, tmp_path) as running:
        yield running


def test_a_restarted_discovery_sends_nothing_again(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with DiscoveryProcess(cluster, tmp_path / "1") as first:
        agent = settled(agent_a(first))
    with DiscoveryProcess(cluster, tmp_path / "2") as second:
        again = agent_a(second)
        again.session, again.sequence = agent.session, agent.sequence
        status, body = again.poll()
        assert (status, body["error"]["code"]) == (410, "gone")
        again.session, again.sequence, again.versions = "", 0, agent.versions
        status, body = again.poll()
        assert status == 200
        assert (body["changed"], body["removed"]) == ({}, {})
        assert second.status()["proxies"][0]["upToDate"]


def test_held_polls_are_answered_when_discovery_stops(discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    held = Held(agent.poll)
    waiting = Held(lambda: discovery.call("GET", "/v1/status?observed=999999&wait=60", timeout=70))
    idle = HTTPSConnection("127.0.0.1", discovery.port, context=discovery.context(*OPERATOR))
    exchange(idle, "GET", "/v1/status")
    time.sleep(0.2)
    os.kill(discovery.process.pid, signal.SIGTERM)
    status, body = held.wait()
    assert (status, body["error"]["code"]) == (503, "unavailable")
    assert waiting.wait()[0] == 200
    assert idle.sock.recv(1) == b"", "a connection without a request is closed"
    assert discovery.process.wait(60) == 0


def test_a_killed_worker_comes_back(discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    os.kill(discovery.worker_pid(), signal.SIGKILL)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            status, _ = agent.poll(1)
        except OSError:
            agent._connection.close()
            continue
        if status == 410:
            return
    raise AssertionError("the worker did not come back")


def test_a_new_certificate_and_new_roots_hold_from_the_next_connection_on(discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    new = Authority("new root")
    certificate = new.issue(uri=ROLE.format(HOME, "heddle-discovery"))
    discovery.roots.write_text(discovery.authority.root_pem + new.root_pem)
    discovery.certificate.write_text(certificate.chain_pem)
    discovery.key.write_text(certificate.key_pem)
    assert agent.poll(0)[0] == 204, "a connection that is open stays"
    context = discovery.client_context(new, ROLE.format("default", "b"))
    context.load_verify_locations(cadata=new.root_pem)
    connection = HTTPSConnection("127.0.0.1", discovery.port, context=context)
    assert exchange(connection, "GET", "/v1/status")[0] == 403
    old_client = discovery.client_context(discovery.authority, ROLE.format("default", "b"))
    old_client.load_verify_locations(cadata=new.root_pem)
    connection = HTTPSConnection("127.0.0.1", discovery.port, context=old_client)
    assert exchange(connection, "GET", "/v1/status")[0] == 403, "old roots are still in the bundle"


def test_health_and_metrics(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    agent = settled(agent_a(discovery))
    cluster.put(service("c", "10.96.0.3"))
    agent.poll()
    agent.poll(0)
    assert discovery.health("/healthz") == (200, "ok\n")
    assert discovery.health("/nothing")[0] == 404
    text = discovery.health("/metrics")[1]
    assert 'pilot_xds{version="test"} 1.0' in text
    assert "# TYPE pilot_xds_pushes counter" in text
    assert 'pilot_xds_pushes{type="cds"} 2.0' in text
    assert 'pilot_total_xds_rejects{type="cds"} 0.0' in text
    assert "pilot_proxy_convergence_time_count 2.0" in text
    assert "pilot_xds_push_time_count 2.0" in text
    assert "pilot_proxy_queue_time_count 1.0" in text
    assert 'pilot_k8s_reg_events{event="add",type="Services"} 1.0' in text
    assert 'pilot_push_triggers{type="service"}' in text
    assert "pilot_services 3.0" in text
