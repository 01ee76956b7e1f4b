"""One real agent with its real Envoy as processes of the test, and resources for them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local.linux import die_with_parent
from mesh.identity import Identity
from mesh.wire import ResourceType
from mesh.xds import config_source
from tests.agent.control_plane import TRUST_DOMAIN, Authority, CaService, DiscoveryService, eventually
from tests.support.ports import free_port

ALL = ("clusters", "endpoints", "listeners", "routes", "virtualHosts")
IDENTITY = Identity(TRUST_DOMAIN, "default", "reviews")
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def cluster(name: str, **more: Any) -> tuple[str, str, Any]:
    config = {"eds_config": config_source()}
    return (
        "clusters",
        name,
        {"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": config, **more},
    )


def endpoints(name: str, *ports: int) -> tuple[str, str, Any]:
    found = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    return "endpoints", name, {"cluster_name": name, "endpoints": [{"lb_endpoints": found}]}


def listener(name: str, port: int, route: str) -> tuple[str, str, Any]:
    manager = {
        "@type": _HCM,
        "stat_prefix": name,
        "rds": {"route_config_name": route, "config_source": config_source(ResourceType.ROUTES)},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return (
        "listeners",
        name,
        {
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
        },
    )


def route(name: str) -> tuple[str, str, Any]:
    return "routes", name, {"name": name}


def virtual_host(route: str, name: str, to: str, *domains: str) -> tuple[str, str, Any]:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": to}}]
    return "virtualHosts", f"{route}/{name}", {"name": name, "domains": list(domains or ("*",)), "routes": routes}


def one_app(port: int, app: App) -> tuple[tuple[str, str, Any], ...]:
    """All that it takes for `app` to answer on `port`: cluster `one`, listener `l`, route `r`, virtual host `r/v`."""
    return (
        cluster("one"),
        endpoints("one", app.port),
        listener("l", port, "r"),
        route("r"),
        virtual_host("r", "v", "one"),
    )


class App:
    """An HTTP server that answers every GET with its name; `/slow` takes a second."""

    def __init__(self, name: str) -> None:
        self.release = threading.Event()
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                if self.path.startswith("/slow"):
                    app.release.wait(20)
                body = name.encode()
                self.send_response(200 if not self.path.startswith("/bad") else 503)
                self.send_header("content-length", str(len(body)))
                self.send_header("x-host", self.headers.get("host", ""))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that break off
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


class Sidecar:
    """`directory` is the data directory; everything listens on loopback, on ports of its own."""

    def __init__(self, directory: Path, ca: CaService, discovery: DiscoveryService, root_pem: str, **env: str) -> None:
        self.directory = directory
        data = directory / "data"
        data.mkdir(exist_ok=True)
        (directory / "token").write_text("a token")
        (directory / "root.pem").write_text(root_pem)
        self.agent_port, self.health_port, self.admin_port = free_port(), free_port(), free_port()
        self.environment = {
            **os.environ,
            "POD_NAME": "reviews-v1",
            "POD_NAMESPACE": "default",
            "POD_UID": "11111111-2222-3333-4444-555555555555",
            "INSTANCE_IP": "127.0.0.1",
            "SERVICE_ACCOUNT": "reviews",
            "CA_ADDR": f"127.0.0.1:{ca.port}",
            "DISCOVERY_ADDR": f"127.0.0.1:{discovery.port}",
            "TOKEN_FILE": str(directory / "token"),
            "ROOT_CERT_FILE": str(directory / "root.pem"),
            "DATA_DIR": str(data),
            "PROXY_CONFIG": json.dumps({"concurrency": 1, "statusPort": self.agent_port, "drainDuration": "1s"}),
            "ENVOY_ADMIN_PORT": str(self.admin_port),
            "HEALTH_PORT": str(self.health_port),
            "STATS_PORT": str(free_port()),
            **env,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.directory / "agent.log").open("ab")
        command = [sys.executable, "-m", "agent", "run"]
        self.process = subprocess.Popen(
            command, env=self.environment, stderr=log, stdout=log, preexec_fn=die_with_parent
        )
        log.close()

    @property
    def log(self) -> str:
        return (self.directory / "agent.log").read_text()

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self.process.wait()

    def get(self, port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ready(self) -> bool:
        try:
            return self.get(self.health_port, "/healthz/ready")[0] == 200
        except OSError:
            return False

    def await_ready(self) -> None:
        assert self.process is not None
        eventually(lambda: self.ready() or self.process.poll() is not None, timeout=120)  # type: ignore[union-attr]
        assert self.process.poll() is None, self.log

    def start_with(self, discovery: DiscoveryService, *resources: tuple[str, str, Any]) -> None:
        """Start, and wait until Envoy has applied `resources`, which are some of every type."""
        discovery.put(*resources)
        self.start()
        self.await_ready()
        discovery.await_applied(*ALL)

    def command(self, *arguments: str) -> Any:
        """`heddle-agent ...`: what it prints, as JSON if it is."""
        command = [sys.executable, "-m", "agent", *arguments]
        printed = subprocess.run(command, env=self.environment, capture_output=True, check=True, timeout=120).stdout
        try:
            return json.loads(printed)
        except ValueError:
            return printed.decode()

    def status(self) -> Any:
        return self.command("status")


@contextlib.contextmanager
def sidecar(
    directory: Path, *, seconds: float = 3600, **env: str
) -> Iterator[tuple[Sidecar, CaService, DiscoveryService]]:
    """A sidecar, not started, with its ca and its discovery; all of them end with the block."""
    authority = Authority()
    ca, discovery = CaService(authority, IDENTITY, seconds), DiscoveryService(authority)
    made = Sidecar(directory, ca, discovery, authority.root_pem, **env)
    try:
        yield made, ca, discovery
    finally:
        if made.process is not None and made.process.poll() is None:
            made.stop(signal.SIGKILL)
        ca.stop()
        discovery.stop()
