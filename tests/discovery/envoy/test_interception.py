"""A real Envoy behind real iptables rules in a network namespace of its own: catch-all chains, original addresses."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from discovery.envoy.render import render
from mesh import sds
from mesh.ports import INBOUND, OUTBOUND, PROXY_GID
from tests.lanes import MACHINE
from tests.mesh.network import OUTSIDE, POD, SERVICE, Namespace
from tests.support import envoy, http, plans
from tests.support.certificates import Authority
from tests.support.echo import EchoApp

pytestmark = [pytest.mark.root, MACHINE]
DECLARED, UNDECLARED, HTTP, TCP, UNKNOWN = 8080, 9090, 80, 5432, 8888


@dataclass(frozen=True)
class World:
    outside: Namespace
    pod: Namespace

    def get(self, where: Namespace, address: str, port: int, host: str = "") -> http.Answer:
        return where.inside(lambda: http.get(port, host=host, address=address))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        outside, pod = Namespace(), Namespace()
        stack.callback(outside.close)
        stack.callback(pod.close)
        outside.ip("link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        for namespace, device, address in ((outside, "veth0", OUTSIDE), (pod, "eth0", POD)):
            namespace.ip("addr", "add", f"{address}/24", "dev", device)
            namespace.ip("link", "set", device, "up")
        pod.ip("route", "add", "default", "via", OUTSIDE)
        for namespace, name, ports in (
            (pod, "pod", (DECLARED, UNDECLARED)),
            (outside, "outside", (HTTP, TCP, UNKNOWN)),
        ):
            for port in ports:
                app = namespace.inside(lambda name=name, port=port: EchoApp(f"{name}-{port}", "0.0.0.0", port))
                stack.enter_context(app)
        assert pod.heddle_init().returncode == 0
        authority = Authority()
        svid = authority.issue(uri="spiffe://cluster.local/ns/default/sa/app")
        secrets = [
            sds.tls_secret(sds.DEFAULT, svid.chain_pem, svid.key_pem),
            sds.validation_secret(sds.ROOTCA, [authority.root_pem]),
        ]
        bootstrap = envoy.static_bootstrap(render(plans.plan(_FIELDS)), secrets, 15000)
        prefix = ["nsenter", f"--net=/run/netns/{pod.name}", "setpriv", f"--regid={PROXY_GID}", "--clear-groups"]
        directory = tmp_path_factory.mktemp("pod")
        stack.enter_context(envoy.RunningEnvoy(bootstrap, directory, prefix=prefix, inside=pod.inside))
        yield World(outside, pod)


def _routes(table: str, name: str, domain: str, destination: str) -> dict[str, object]:
    route = {"name": "default", "match": {}, "targets": [{"destination": destination}]}
    return {"name": table, "virtual_hosts": [{"name": name, "domains": [domain], "routes": [route]}]}


_INBOUND = f"inbound|{DECLARED}||"
_FIELDS = {
    "inbound": [
        {
            "port": DECLARED,
            "protocol": "http",
            "peer_tls": "PERMISSIVE",
            "destination": _INBOUND,
            "route_table": _INBOUND,
        }
    ],
    "outbound": [
        {"name": "0.0.0.0_80", "address": "0.0.0.0", "port": HTTP, "protocol": "http", "route_table": "80"},
        {
            "name": f"{SERVICE}_5432",
            "address": SERVICE,
            "port": TCP,
            "protocol": "tcp",
            "targets": [{"destination": "tcp"}],
        },
    ],
    "route_tables": [_routes("80", "web", "web", "web"), _routes(_INBOUND, "inbound", "*", _INBOUND)],
    "destinations": [
        {"name": _INBOUND, "resolution": "local", "protocol": "http", "address": POD, "port": DECLARED},
        {"name": "web", "resolution": "endpoints", "protocol": "http"},
        {"name": "tcp", "resolution": "endpoints"},
    ],
    "endpoints": [
        {"name": "web", "endpoints": [{"address": OUTSIDE, "port": HTTP, "mesh_tls": False}]},
        {"name": "tcp", "endpoints": [{"address": OUTSIDE, "port": TCP, "mesh_tls": False}]},
    ],
}


@pytest.mark.parametrize(("port", "through_http"), [(DECLARED, True), (UNDECLARED, False)])
def test_inbound(world: World, port: int, through_http: bool) -> None:
    answer = world.get(world.outside, POD, port)
    assert answer.json["app"] == f"pod-{port}"
    assert answer.json["client"] == "127.0.0.6", "the app's connection is the proxy's"
    assert (answer.headers["server"] == "istio-envoy") is through_http


@pytest.mark.parametrize(
    ("address", "port", "host", "app"),
    [
        (SERVICE, HTTP, "web", f"outside-{HTTP}"),
        (SERVICE, TCP, "", f"outside-{TCP}"),
        (OUTSIDE, HTTP, "unknown.example.com", f"outside-{HTTP}"),
        (OUTSIDE, UNKNOWN, "", f"outside-{UNKNOWN}"),
    ],
    ids=["route", "tcp", "unknown host", "unknown port"],
)
def test_outbound(world: World, address: str, port: int, host: str, app: str) -> None:
    assert world.get(world.pod, address, port, host).json["app"] == app


@pytest.mark.parametrize("port", [OUTBOUND, INBOUND])
def test_the_proxys_own_ports_lead_nowhere(world: World, port: int) -> None:
    def connect() -> bytes:
        with socket.create_connection((POD, port), 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            try:
                return client.recv(100)
            except ConnectionResetError:
                return b""

    assert world.outside.inside(connect) == b""
