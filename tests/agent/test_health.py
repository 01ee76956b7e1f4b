"""Readiness, the app's probes, statistics: what kubelet and Prometheus get."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.http_server import Request
from agent.probes import AppProbes, mark, parse_probes
from mesh.errors import InvalidInput
from mesh.identity import Identity
from svid.tls import server_context
from tests.agent.control_plane import Authority
from tests.agent.sidecar import App, one_app, sidecar
from tests.support.ports import free_port


@pytest.fixture
def app() -> Iterator[App]:
    made = App("app")
    yield made
    made.stop()


def probe(
    definition: dict[str, Any], *, path: str = "/app-health/app/livez", ip: str = "127.0.0.1", **headers: str
) -> tuple[int, bytes]:
    request = Request("GET", path, "", tuple(headers.items()), b"", "10.0.0.9")
    response = asyncio.run(AppProbes(parse_probes({path: definition}), ip).answer(request))
    assert isinstance(response.body, bytes)
    return response.status, response.body


def test_an_http_probe_gets_the_apps_status_and_body(app: App) -> None:
    assert probe({"httpGet": {"path": "/fine", "port": app.port}}) == (200, b"app")
    assert probe({"httpGet": {"path": "bad", "port": app.port}})[0] == 503
    assert probe({"httpGet": {"port": app.port, "httpHeaders": [{"name": "Host", "value": "x.example"}]}})[0] == 200


def test_a_probe_that_nobody_answers_fails(app: App) -> None:
    assert probe({"httpGet": {"port": free_port()}})[0] == 500
    assert probe({"tcpSocket": {"port": free_port()}})[0] == 500
    status, body = probe({"httpGet": {"path": "/slow", "port": app.port}, "timeoutSeconds": 0.2})
    assert (status, body) == (500, b"no answer within 0.2 s")


@pytest.mark.parametrize("path", ["/app-lifecycle/app/prestopz", "/app-lifecycle/app/poststartz"])
def test_a_hook_of_the_life_cycle_is_passed_on(path: str, app: App) -> None:
    definition = {"httpGet": {"path": "/fine", "port": app.port}, "timeoutSeconds": 120}
    assert probe(definition, path=path) == (200, b"app")
    assert probe({"httpGet": {"path": "/bad", "port": app.port}}, path=path)[0] == 503


def test_an_app_of_ipv6() -> None:
    """::6 is nobody's here, because nothing is intercepted: the probe goes without its mark."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        port = listening.getsockname()[1]
        assert mark("::1") is None
        assert probe({"tcpSocket": {"port": port}}, ip="::1") == (200, b"")

        def answer() -> None:
            for _ in range(2):  # the first was the one above
                connection, _ = listening.accept()
                with connection:
                    if connection.recv(4096):
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv6")

        thread = threading.Thread(target=answer)
        thread.start()
        assert probe({"httpGet": {"port": port}}, ip="::1") == (200, b"v6")
        thread.join()


def test_a_tcp_probe_is_an_open_port(app: App) -> None:
    assert probe({"tcpSocket": {"port": app.port}}) == (200, b"")


def test_a_probe_over_https_is_not_verified() -> None:
    authority = Authority()
    context = server_context(authority.material(Identity("cluster.local", "x", "y")), client_certificate=ssl.CERT_NONE)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = listening.getsockname()[1]
        assert probe({"httpGet": {"port": port, "scheme": "HTTPS"}}) == (200, b"")  # a redirect is a success
        thread.join()


@pytest.mark.parametrize("status", [1, 2])
def test_a_grpc_probe_asks_the_health_service(status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
                message = b"\x00\x00\x00\x00\x02\x08" + bytes((status,))
                headers = b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88"  # :status 200
                data = len(message).to_bytes(3, "big") + b"\x00\x01\x00\x00\x00\x01" + message
                connection.sendall(settings + headers + data)
                connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        assert probe({"grpc": {"port": listening.getsockname()[1], "service": "s"}})[0] == (200 if status == 1 else 500)
        thread.join()


@pytest.mark.parametrize(
    ("path", "definition", "says"),
    [
        ("/app-health/x/other", {"tcpSocket": {"port": 1}}, "livez, readyz or startupz"),
        ("/app-lifecycle/x/livez", {"tcpSocket": {"port": 1}}, "prestopz or poststartz"),
        ("/app-health/x/livez", {}, "exactly one of"),
        ("/app-health/x/livez", [], "exactly one of"),
        ("/app-health/x/livez", {"tcpSocket": {"port": "http"}}, "port must be a number"),
        ("/app-health/x/livez", {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}, "exactly one of"),
    ],
)
def test_a_wrong_probe_is_named(path: str, definition: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)) as error:
        parse_probes({path: definition})
    assert path in str(error.value.field)


def test_the_ports_of_a_running_sidecar(tmp_path: Path, app: App) -> None:
    probes = {"/app-health/app/readyz": {"httpGet": {"path": "/", "port": app.port}, "timeoutSeconds": 1}}
    with sidecar(tmp_path, ISTIO_KUBE_APP_PROBERS=json.dumps(probes)) as (made, _ca, discovery):
        port = free_port()
        discovery.put(*one_app(port, app))
        made.start()
        made.await_ready()
        made.get(port, "/")
        assert made.get(made.agent_port, "/healthz/ready")[0] == 200
        assert made.get(made.agent_port, "/app-health/app/readyz") == (200, b"app")
        assert made.get(made.agent_port, "/app-health/app/livez")[0] == 404
        assert made.get(made.health_port, "/stats/prometheus")[0] == 404
        status, text = made.get(made.agent_port, "/stats/prometheus")
        assert status == 200
        assert b"\nheddle_agent_discovery_connected 1\n" in text
        assert b"envoy_cluster_upstream_rq_total" in text
        stats_port = int(made.environment["STATS_PORT"])
        assert b"envoy_cluster_upstream_rq_total" in made.get(stats_port, "/stats/prometheus")[1]
        assert made.command("admin", "GET", "/ready") == "LIVE\n"
        assert made.command("status")["identity"] == "spiffe://cluster.local/ns/default/sa/reviews"
