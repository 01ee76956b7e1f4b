"""Two real Envoys: the client's outbound and the server's inbound side, mutual TLS between them.

No interception here: listeners are bound to loopback ports, so the catch-all chains are not reached.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from discovery.envoy.render import render
from mesh import sds
from tests.support import envoy, http, plans
from tests.support.certificates import Authority, Certificate
from tests.support.echo import EchoApp
from tests.support.ports import free_port

CLIENT = "spiffe://cluster.local/ns/default/sa/client"
SERVER = "spiffe://cluster.local/ns/default/sa/server"
INBOUND = {
    "strict": ("http", "STRICT"),
    "permissive": ("http", "PERMISSIVE"),
    "disable": ("http", "DISABLE"),
    "tcp-strict": ("tcp", "STRICT"),
    "tcp-permissive": ("tcp", "PERMISSIVE"),
}


def _secrets(svid: Certificate, *roots: str) -> list[dict[str, Any]]:
    return [sds.tls_secret(sds.DEFAULT, svid.chain_pem, svid.key_pem), sds.validation_secret(sds.ROOTCA, roots)]


def _destination(name: str, **tls: Any) -> dict[str, Any]:
    settings = {"mode": "ISTIO_MUTUAL", "automatic": True, **tls}
    return {"name": name, "resolution": "endpoints", "protocol": "http", "tls": settings}


def _to(table: str, destination: str) -> dict[str, Any]:
    route = {"name": "default", "match": {}, "targets": [{"destination": destination}]}
    return {"name": table, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


@dataclass(frozen=True)
class Server:
    """The server's ports are named as in INBOUND."""

    authority: Authority
    ports: dict[str, int]
    app: EchoApp
    envoy: envoy.RunningEnvoy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    authority = Authority()
    ports = {name: free_port() for name in INBOUND}
    with EchoApp("app") as app:
        fields = {
            "inbound": [
                {
                    "port": ports[name],
                    "protocol": protocol,
                    "peer_tls": mode,
                    "destination": f"inbound|{ports[name]}||",
                    "route_table": f"inbound|{ports[name]}||" if protocol == "http" else "",
                }
                for name, (protocol, mode) in INBOUND.items()
            ],
            "destinations": [
                {
                    "name": f"inbound|{ports[name]}||",
                    "resolution": "local",
                    "protocol": protocol,
                    "address": "127.0.0.1",
                    "port": app.port,
                }
                for name, (protocol, _) in INBOUND.items()
            ],
            "route_tables": [_to(f"inbound|{port}||", f"inbound|{port}||") for port in ports.values()],
        }
        secrets = _secrets(authority.issue(uri=SERVER), authority.root_pem)
        bootstrap = envoy.static_bootstrap(render(plans.plan(fields)), secrets, free_port())
        bootstrap = envoy.bind_listeners(bootstrap, {"virtualInbound": list(ports.values())})
        with envoy.RunningEnvoy(bootstrap, tmp_path_factory.mktemp("server")) as running:
            yield Server(authority, ports, app, running)


def _client(
    server: Server,
    target: str,
    *,
    identity: str = CLIENT,
    authority: Authority | None = None,
    mesh_tls: bool = True,
    protocol: str = "http",
    **tls: Any,
) -> tuple[dict[str, Any], int]:
    """The bootstrap of a client Envoy whose only destination is the server's port `target`."""
    port = free_port()
    fields = {
        "outbound": [{"name": "out", "address": "0.0.0.0", "port": 80, "protocol": "http", "route_table": "80"}],
        "route_tables": [_to("80", "outbound|80||server")],
        "destinations": [{**_destination("outbound|80||server", **tls), "protocol": protocol}],
        "endpoints": [
            {
                "name": "outbound|80||server",
                "endpoints": [{"address": "127.0.0.1", "port": server.ports[target], "mesh_tls": mesh_tls}],
            }
        ],
    }
    svid = (authority or server.authority).issue(uri=identity)
    secrets = _secrets(svid, server.authority.root_pem)
    bootstrap = envoy.static_bootstrap(render(plans.plan(fields)), secrets, free_port())
    return envoy.bind_listeners(bootstrap, {"out": [port]}), port


@pytest.mark.parametrize("target", ["strict", "permissive"])
def test_mutual_tls_shows_the_client_to_the_app(server: Server, target: str, tmp_path: Path) -> None:
    bootstrap, port = _client(server, target, server_identities=[SERVER])
    with envoy.RunningEnvoy(bootstrap, tmp_path) as running:
        answer = http.get(port, headers={"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/x/sa/forged"})
        stats = running.admin("/stats?filter=ssl")
    assert answer.status == 200
    seen = answer.json["headers"]["x-forwarded-client-cert"]
    assert f"URI={CLIENT}" in seen
    assert "forged" not in seen
    assert "ssl.versions.TLSv1.3: 1" in stats


def test_http2_is_negotiated_where_the_destination_speaks_it(server: Server, tmp_path: Path) -> None:
    bootstrap, port = _client(server, "strict", protocol="http2")
    with envoy.RunningEnvoy(bootstrap, tmp_path) as running:
        assert http.get(port).status == 200
        assert "upstream_cx_http2_total: 1" in running.admin("/stats?filter=outbound.80.*upstream_cx_http2_total")


@pytest.mark.parametrize(
    "wrong",
    [
        {"server_identities": ["spiffe://cluster.local/ns/default/sa/other"]},
        {"identity": "spiffe://elsewhere.org/ns/default/sa/client"},
        {"authority": Authority("foreign root")},
        {"mesh_tls": False},
    ],
    ids=["another server", "another trust domain", "another root", "plain text"],
)
def test_strict_refuses(server: Server, wrong: dict[str, Any], tmp_path: Path) -> None:
    bootstrap, port = _client(server, "strict", **wrong)
    with envoy.RunningEnvoy(bootstrap, tmp_path):
        assert http.get(port).status == 503


def test_an_endpoint_without_mesh_tls_gets_plain_text(server: Server, tmp_path: Path) -> None:
    bootstrap, port = _client(server, "disable", mesh_tls=False)
    with envoy.RunningEnvoy(bootstrap, tmp_path):
        assert http.get(port).status == 200


@pytest.mark.parametrize("target", ["permissive", "disable"])
def test_plain_text_passes_and_cannot_forge_a_client(server: Server, target: str) -> None:
    answer = http.get(server.ports[target], headers={"x-forwarded-client-cert": "URI=" + CLIENT})
    assert answer.status == 200
    assert "x-forwarded-client-cert" not in answer.json["headers"]


@pytest.mark.parametrize("target", ["strict", "tcp-strict"])
def test_strict_closes_plain_text(server: Server, target: str) -> None:
    with socket.create_connection(("127.0.0.1", server.ports[target]), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_plain_tcp_passes_where_permitted(server: Server) -> None:
    assert http.get(server.ports["tcp-permissive"]).json["app"] == "app"


def test_strict_demands_a_certificate(server: Server) -> None:
    # In TLS 1.3 the client's own handshake ends before the server has looked for its certificate.
    with _tls(server.ports["strict"]) as client, pytest.raises((ssl.SSLError, ConnectionResetError)):
        client.recv(100)


def test_tls_12_is_refused(server: Server) -> None:
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        _tls(server.ports["strict"], ssl.TLSVersion.TLSv1_2)


def test_an_apps_own_tls_passes_where_permitted(server: Server) -> None:
    """The app behind it speaks plain HTTP and sees a ClientHello: its 400 shows that the bytes came through."""
    with socket.create_connection(("127.0.0.1", server.ports["tcp-permissive"]), 10) as raw:
        hello = ssl.MemoryBIO()
        client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="app.example.com")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        raw.sendall(hello.read() + b"\r\n\r\n")
        assert b"400" in raw.recv(1000)


def _tls(port: int, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["istio"])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10))
