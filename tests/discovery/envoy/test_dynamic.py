"""A real Envoy that gets everything by REST, as `mesh.xds` says, from a small server here that holds its polls."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from discovery.envoy.render import Resources, render
from mesh import sds, xds
from mesh.wire import ResourceType
from tests.support import envoy, http, plans
from tests.support.certificates import Authority
from tests.support.echo import EchoApp
from tests.support.ports import free_port

PATHS = {xds.rest_path(kind): kind for kind in xds.TYPE_URLS}
HOLD = 10.0


@dataclass
class Control:
    """What the server answers; `publish` wakes the polls that it holds."""

    resources: Resources = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    closed: bool = False

    def publish(self, resources: Resources) -> None:
        with self.changed:
            self.resources = resources
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def answer(self, kind: ResourceType, request: dict[str, Any]) -> dict[str, Any] | None:
        """The DiscoveryResponse, once it differs from what Envoy has; None when nothing came in time."""
        end = time.monotonic() + HOLD
        with self.changed:
            while True:
                found = self._find(kind, request.get("resource_names", []))
                version = str(hash(json.dumps(found)))
                if version != request.get("version_info"):
                    return {"version_info": version, "type_url": xds.TYPE_URLS[kind], "resources": found}
                if self.closed or time.monotonic() >= end:
                    return None
                self.changed.wait(end - time.monotonic())

    def _find(self, kind: ResourceType, names: list[str]) -> list[dict[str, Any]]:
        if kind is ResourceType.SECRETS:
            return [self.secrets[name] for name in names if name in self.secrets]
        if kind is ResourceType.ROUTES:
            return [envoy.assembled_routes(self.resources, name) for name in names]
        named = self.resources[kind]
        return [json.loads(named[name][1]) for name in names or named if name in named]


@pytest.fixture
def control() -> Iterator[tuple[Control, int]]:
    """The control plane and its port."""
    state = Control()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # Envoy leaves while its polls are held
                super().handle()

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = state.answer(PATHS[self.path], request)
            body = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(304 if answer is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield state, int(server.server_address[1])
    state.close()
    server.shutdown()
    server.server_close()
    thread.join(60)


def _bootstrap(port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    cluster = {
        "name": xds.AGENT_CLUSTER,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": xds.AGENT_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}},
        "dynamic_resources": {"cds_config": xds.config_source(), "lds_config": xds.config_source()},
        "stats_config": {"stats_tags": list(xds.STATS_TAGS)},
        "static_resources": {"clusters": [cluster]},
    }


def _gateway(ports: dict[str, int], app: EchoApp, to: str) -> Resources:
    """A gateway with plain HTTP, HTTPS by a credential that exists, and, on the same port, by one that does not."""
    routes = [{"name": "r", "match": {}, "targets": [{"destination": to}]}]
    servers = [
        {"sni": [f"{name}.example.com"], "protocol": "http", "route_table": "http.80", "tls": {"credential": name}}
        for name in ("there", "missing")
    ]
    return render(
        plans.plan(
            {
                "proxy": {"role": "gateway"},
                "gateways": [
                    {"name": "plain", "port": ports["plain"], "servers": [{"route_table": "http.80"}]},
                    {"name": "tls", "port": ports["tls"], "servers": servers},
                ],
                "route_tables": [
                    {"name": "http.80", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
                ],
                "destinations": [
                    {"name": "outbound|80||app.example.com", "resolution": "endpoints", "protocol": "http"},
                    {"name": "outbound|80||empty.example.com", "resolution": "endpoints", "protocol": "http"},
                ],
                "endpoints": [
                    {
                        "name": "outbound|80||app.example.com",
                        "endpoints": [{"address": "127.0.0.1", "port": app.port, "mesh_tls": False}],
                    }
                ],
            }
        )
    )


def test_everything_by_rest(control: tuple[Control, int], tmp_path: Path) -> None:
    state, port = control
    authority = Authority()
    certificate = authority.issue(dns="there.example.com")
    secret = sds.tls_secret(sds.credential_name("there"), certificate.chain_pem, certificate.key_pem)
    state.secrets[secret["name"]] = secret
    ports = {"plain": free_port(), "tls": free_port()}
    with EchoApp("app") as app:
        state.publish(_gateway(ports, app, "outbound|80||app.example.com"))
        with envoy.RunningEnvoy(_bootstrap(port), tmp_path) as running:
            answer = http.get(ports["plain"], headers={"x-envoy-retry-on": "5xx", "x-forwarded-for": "1.2.3.4"})
            assert answer.status == 200
            seen = answer.json["headers"]
            assert "x-envoy-retry-on" not in seen, "what strangers say of Envoy's own headers is removed"
            assert seen["x-forwarded-for"].startswith("1.2.3.4,"), "and the client's own address is added"

            assert _served_name(ports["tls"], "there.example.com", authority) == "there.example.com"
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                _served_name(ports["tls"], "missing.example.com", authority)

            # A held poll ends with the change, and the next request goes by it.
            state.publish(_gateway(ports, app, "outbound|80||empty.example.com"))
            end = time.monotonic() + 120
            while http.get(ports["plain"]).status != 503:
                assert time.monotonic() < end, running.admin("/config_dump")

            lines = running.admin("/stats/prometheus?usedonly").splitlines()
            assert any(
                line.startswith("envoy_cluster_upstream_rq_total{")
                and 'cluster_name="outbound|80||app.example.com"' in line
                for line in lines
            ), "\n".join(line for line in lines if "upstream_rq_total" in line)
            prefix = f'http_conn_manager_prefix="outbound_0.0.0.0_{ports["plain"]}"'
            assert any(line.startswith("envoy_http_downstream_rq_total{") and prefix in line for line in lines)


def _served_name(port: int, name: str, authority: Authority) -> str:
    """The name in the certificate that a TLS client of `name` gets, verified, over HTTP/2 by ALPN."""
    context = ssl.create_default_context(cadata=authority.root_pem)
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection(("127.0.0.1", port), 10)
    with context.wrap_socket(raw, server_hostname=name) as client:
        assert client.selected_alpn_protocol() == "h2"
        certificate: Any = client.getpeercert()
        return str(certificate["subjectAltName"][0][1])
