"""What Envoy does with changes while requests flow: order, refusals, many subscriptions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.control_plane import DiscoveryService, eventually
from tests.agent.load import Load
from tests.agent.sidecar import (
    ALL,
    App,
    Sidecar,
    cluster,
    endpoints,
    listener,
    one_app,
    route,
    sidecar,
    virtual_host,
)
from tests.support.ports import free_port

BAD_RING = {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 2000, "maximum_ring_size": 100}}


@pytest.fixture
def apps() -> Iterator[list[App]]:
    made = [App("one"), App("two")]
    yield made
    for app in made:
        app.stop()


@pytest.fixture
def running(tmp_path: Path, apps: list[App]) -> Iterator[tuple[Sidecar, DiscoveryService, int]]:
    port = free_port()
    with sidecar(tmp_path) as (made, _ca, discovery):
        made.start_with(discovery, *one_app(port, apps[0]))
        yield made, discovery, port


def rejected(discovery: DiscoveryService, kind: str) -> Any:
    """What is reported as refused: name -> Envoy's words."""
    return {each["name"]: each["message"] for each in discovery.applied[kind]["rejected"]}


def test_services_that_replace_each_other_cost_no_request(
    running: tuple[Sidecar, DiscoveryService, int], apps: list[App]
) -> None:
    made, discovery, port = running
    with Load(port) as load:
        for turn in range(20):
            old, new = ("one", "two") if turn % 2 == 0 else ("two", "one")
            app = apps[1 - turn % 2]
            discovery.put(
                ("clusters", old, None),
                ("endpoints", old, None),
                cluster(new),
                endpoints(new, app.port),
                virtual_host("r", "v", new),
            )
            discovery.await_applied(*ALL)
    assert load.failures == []
    assert set(load.answers) == {b"one", b"two"}
    clusters = made.command("admin", "GET", "/clusters?format=json")["cluster_statuses"]
    assert {each["name"] for each in clusters} == {"one", "xds-agent", "prometheus_stats"}


def test_a_replaced_listener_and_route_cost_no_request(
    running: tuple[Sidecar, DiscoveryService, int], apps: list[App]
) -> None:
    _made, discovery, port = running
    with Load(port) as load:
        for turn in range(5):
            name, old = f"r{turn}", "r" if turn == 0 else f"r{turn - 1}"
            discovery.put(
                route(name),
                virtual_host(name, "v", "one"),
                listener("l", port, name),
                ("routes", old, None),
                ("virtualHosts", f"{old}/v", None),
            )
            discovery.await_applied(*ALL)
    assert load.failures == []


def test_a_refused_cluster_is_reported_in_envoys_words_and_the_rest_works(
    running: tuple[Sidecar, DiscoveryService, int], apps: list[App]
) -> None:
    made, discovery, port = running
    discovery.put(
        cluster("two"),
        endpoints("two", apps[1].port),
        cluster("bad", **BAD_RING),
        virtual_host("r", "v", "two"),
        virtual_host("r", "w", "bad", "bad.example"),
    )
    eventually(lambda: "minimum_ring_size (2000)" in rejected(discovery, "clusters")["bad"])
    eventually(lambda: made.get(port, "/")[1] == b"two")
    assert discovery.applied["clusters"]["sequence"] == discovery.sequence - 1
    assert made.ready()
    discovery.put(cluster("bad"), endpoints("bad", apps[0].port))
    discovery.await_applied(*ALL)
    assert made.get(port, "/", Host="bad.example")[1] == b"one"


def test_a_report_that_gets_to_another_replica_is_made_again(running: tuple[Sidecar, DiscoveryService, int]) -> None:
    """Not only told with the next request, which may be long in coming."""
    made, discovery, _port = running
    discovery.astray = 5
    serial = made.command("renew")["new"]
    eventually(lambda: any(report["trust"]["serial"] == serial for report in discovery.reports))
    assert discovery.astray == 0


def test_a_cluster_that_breaks_a_constraint_is_found_among_many(
    running: tuple[Sidecar, DiscoveryService, int],
) -> None:
    made, discovery, port = running
    discovery.put(
        *(cluster(f"c{i}") for i in range(20)),
        *(endpoints(f"c{i}", 1) for i in range(20)),
        cluster("broken", connect_timeout="-1s"),
    )
    eventually(lambda: "duration" in rejected(discovery, "clusters")["broken"])
    clusters = made.command("admin", "GET", "/clusters?format=json")["cluster_statuses"]
    assert {each["name"] for each in clusters} == {f"c{i}" for i in range(20)} | {
        "one",
        "xds-agent",
        "prometheus_stats",
    }
    assert made.get(port, "/") == (200, b"one")


def test_a_refused_listener_leaves_the_others_in_force(running: tuple[Sidecar, DiscoveryService, int]) -> None:
    made, discovery, port = running
    other = free_port()
    kind, name, bad = listener("bad", free_port(), "r")
    bad["filter_chains"] = []
    discovery.put(listener("good", other, "r"), (kind, name, bad))
    eventually(lambda: "no filter chains" in rejected(discovery, "listeners")["bad"])
    assert made.get(other, "/") == (200, b"one")
    assert made.get(port, "/") == (200, b"one")
    discovery.put((kind, name, None))
    discovery.await_applied(*ALL)
    assert rejected(discovery, "listeners") == {}


def test_a_refused_virtual_host_leaves_its_last_good_version_and_the_others(
    running: tuple[Sidecar, DiscoveryService, int],
) -> None:
    made, discovery, port = running
    kind, name, bad = virtual_host("r", "v", "one")
    bad["routes"][0]["match"] = {"safe_regex": {"regex": "(("}}
    discovery.put((kind, name, bad), virtual_host("r", "other", "one", "other.example"))
    eventually(lambda: rejected(discovery, "virtualHosts")["r/v"])
    assert made.get(port, "/") == (200, b"one")
    assert made.get(port, "/", Host="other.example") == (200, b"one")
    assert made.status()["applied"]["virtualHosts"]["rejected"][0]["name"] == "r/v"


def test_endpoints_come_and_go_without_a_failed_request(
    running: tuple[Sidecar, DiscoveryService, int], apps: list[App]
) -> None:
    _made, discovery, port = running
    with Load(port) as load:
        for turn in range(10):
            ports = [apps[0].port, apps[1].port] if turn % 2 == 0 else [apps[turn // 2 % 2].port]
            discovery.put(endpoints("one", *ports))
            discovery.await_applied("endpoints")
    assert load.failures == []


def test_two_hundred_endpoint_subscriptions(running: tuple[Sidecar, DiscoveryService, int], apps: list[App]) -> None:
    made, discovery, port = running
    names = [f"outbound|80||s{i}.default.svc.cluster.local" for i in range(200)]
    discovery.put(*map(cluster, names), *(endpoints(name, apps[1].port) for name in names))
    discovery.await_applied("clusters", "endpoints", timeout=40)
    clusters = made.command("admin", "GET", "/clusters?format=json")["cluster_statuses"]
    assert sum(1 for each in clusters if each["name"] in names and each.get("host_statuses")) == 200
    discovery.put(endpoints(names[77], apps[0].port), virtual_host("r", "v", names[77]))
    discovery.await_applied("clusters", "endpoints", "virtualHosts")
    assert made.get(port, "/") == (200, b"one")
