"""A stock Envoy without an agent, as an ingress gateway: its whole configuration by REST from `--bare-listen`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from mesh.objects import SIDECAR_STATUS_ANNOTATION
from mesh.xds import AGENT_CLUSTER, config_source
from tests.discovery.harness import (
    Cluster,
    DiscoveryProcess,
    Json,
    endpoints,
    exchange,
    meta,
    pod,
    service,
    virtual_service,
)
from tests.support.echo import EchoApp
from tests.support.envoy import RunningEnvoy
from tests.support.http import get
from tests.support.ports import free_port

HOST = "shop.example.com"
NODE = "router~127.0.0.1~ingress-0.default~default.svc.cluster.local"


def bootstrap(bare_port: int, node: str = NODE) -> Json:
    many = {"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": bare_port}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "node": {"id": node, "cluster": "ingress"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}},
        "static_resources": {
            "clusters": [
                {
                    "name": AGENT_CLUSTER,
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "circuit_breakers": {"thresholds": [many]},
                    "load_assignment": {"cluster_name": AGENT_CLUSTER, "endpoints": [endpoint]},
                }
            ]
        },
        "dynamic_resources": {"lds_config": config_source(), "cds_config": config_source()},
    }


def ingress(port: int) -> list[Json]:
    """A gateway in pod `ingress-0` that opens `port` for `HOST`."""
    gateway = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": meta("front"),
        "spec": {
            "selector": {"app": "ingress"},
            "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [HOST]}],
        },
    }
    annotations = {SIDECAR_STATUS_ANNOTATION: "{}", "inject.istio.io/templates": "gateway"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
        pod("ingress-0", "127.0.0.1", account="ingress", annotations=annotations),
        service("ingress", "10.96.0.9", 80, port),
        gateway,
        service("shop", "10.96.0.1"),
    ]


def routes(prefix: str) -> Json:
    found = virtual_service("shop", "shop", prefix)
    found["spec"]["hosts"] = [HOST]
    found["spec"]["gateways"] = ["front"]
    return found


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def cluster(port: int) -> Iterator[Cluster]:
    with Cluster() as running:
        running.put(*ingress(port), routes("/shop"))
        yield running


@pytest.fixture
def discovery(cluster: Cluster, tmp_path: Path) -> Iterator[DiscoveryProcess]:
    with DiscoveryProcess(cluster, tmp_path) as running:
        yield running


@pytest.fixture
def shop() -> Iterator[EchoApp]:
    with EchoApp("shop") as running:
        yield running


def eventually(check: Callable[[], Any], wanted: Any) -> None:
    until = time.monotonic() + 120
    found: Any = None
    while time.monotonic() < until:
        try:
            found = check()
        except OSError as error:
            found = error
        if found == wanted:
            return
        time.sleep(0.05)
    raise AssertionError(f"{found!r}, not {wanted!r}")


def ask(discovery: DiscoveryProcess, kind: str, body: object) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", discovery.bare_port, timeout=60)
    try:
        return exchange(connection, "POST", f"/v3/discovery:{kind}", body)
    finally:
        connection.close()


def request(*names: str, version: str = "", node: str = NODE) -> Json:
    return {"version_info": version, "node": {"id": node}, "resource_names": list(names)}


def test_a_bare_envoy_serves_and_follows_changes(
    cluster: Cluster, discovery: DiscoveryProcess, shop: EchoApp, port: int, tmp_path: Path
) -> None:
    cluster.put(endpoints("shop", shop.port, {"127.0.0.1": ""}))
    with RunningEnvoy(bootstrap(discovery.bare_port), tmp_path):
        eventually(lambda: get(port, "/shop/1", HOST).status, 200)
        assert get(port, "/other", HOST).status == 404
        cluster.put(routes("/other"))
        eventually(lambda: get(port, "/other", HOST).status, 200)
        assert get(port, "/shop/1", HOST).status == 404
        cluster.put(endpoints("shop", shop.port, {}))
        eventually(lambda: get(port, "/other", HOST).status, 503)
        version = cluster.put(endpoints("shop", shop.port, {"127.0.0.1": ""}))
        eventually(lambda: get(port, "/other", HOST).status, 200)
        status = discovery.status(f"?observed={version}&kind=EndpointSlice&wait=20")
        assert status["applied"]
        (proxy,) = status["proxies"]
        assert (proxy["kind"], proxy["upToDate"]) == ("bare", True)
        assert proxy["types"]["clusters"]["applied"] == proxy["types"]["clusters"]["current"]


def test_an_envoy_that_starts_again_gets_everything(
    cluster: Cluster, discovery: DiscoveryProcess, shop: EchoApp, port: int, tmp_path: Path
) -> None:
    cluster.put(endpoints("shop", shop.port, {"127.0.0.1": ""}))
    for _ in range(3):
        with RunningEnvoy(bootstrap(discovery.bare_port), tmp_path):
            eventually(lambda: get(port, "/shop/1", HOST).status, 200)


def test_versions_are_per_set_of_resources(discovery: DiscoveryProcess) -> None:
    name = "outbound|80||shop.default.svc.cluster.local"
    status, one = ask(discovery, "endpoints", request(name))
    assert status == 200
    assert one["type_url"].endswith("ClusterLoadAssignment")
    assert one["resources"][0]["@type"] == one["type_url"]
    status, none = ask(discovery, "endpoints", request("outbound|1||nothing"))
    assert (status, none["resources"]) == (200, [])
    assert none["version_info"] not in ("", one["version_info"])
    _, every = ask(discovery, "routes", request())
    _, one = ask(discovery, "routes", request(every["resources"][0]["name"]))
    assert one["resources"] == every["resources"][:1]
    assert one["resources"][0]["virtual_hosts"]


def test_a_poll_is_held_until_something_changes(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    _, before = ask(discovery, "clusters", request())
    cluster.put(service("more", "10.96.0.7"))
    status, after = ask(discovery, "clusters", {**request(), "version_info": before["version_info"]})
    assert status == 200
    assert after["version_info"] != before["version_info"]
    assert len(after["resources"]) == len(before["resources"]) + 1


def test_a_refusal_is_not_answered_again_and_again(discovery: DiscoveryProcess) -> None:
    """The old version once more means that Envoy refused (tests/discovery/test_bare.py has the pauses)."""
    versions = {ask(discovery, "listeners", request())[1]["version_info"] for _ in range(3)}
    assert len(versions) == 1
    (proxy,) = discovery.status()["proxies"]
    assert proxy["types"]["listeners"]["rejected"]
    assert not discovery.status()["ready"]


def test_no_keys_for_callers_that_nobody_knows(cluster: Cluster, discovery: DiscoveryProcess) -> None:
    status, body = ask(discovery, "secrets", request("kubernetes://shop-cert"))
    assert (status, body["resources"]) == (200, [])


@pytest.mark.parametrize(
    ("kind", "body", "status", "field"),
    [
        ("clusters", b"nonsense", 400, "body"),
        ("clusters", [], 400, "body"),
        ("clusters", {}, 400, "node.id"),
        ("clusters", {"node": {"id": "just-a-name"}}, 400, "node.id"),
        ("clusters", {"node": 7}, 400, "node.id"),
        ("clusters", {**request(), "resource_names": "a"}, 400, "resource_names"),
        ("clusters", {**request(), "version_info": 1}, 400, "version_info"),
        ("extensions", request(), 404, None),
        ("clusters", request(node="sidecar~10.0.0.1~nobody.default~d"), 404, "node.id"),
    ],
    ids=str,
)
def test_requests_that_are_wrong(
    unchanging: DiscoveryProcess, kind: str, body: Any, status: int, field: str | None
) -> None:
    found, answer = ask(unchanging, kind, body)
    assert found == status
    assert answer["error"].get("field") == field
    assert answer["error"]["message"]


@pytest.fixture(scope="module")
def unchanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiscoveryProcess]:
    with Cluster() as cluster:
        cluster.put(*ingress(8080))
        with DiscoveryProcess(cluster, tmp_path_factory.mktemp("unchanging")) as running:
            yield running
