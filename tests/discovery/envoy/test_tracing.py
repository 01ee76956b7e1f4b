"""Real Envoys on the way of a request, gateway, client's sidecar and server's, and a collector that takes their spans.

One Envoy plays the gateway and the client's sidecar: what a hop adds is in the headers, whoever plays it. Listeners are
bound to loopback ports, and nothing is encrypted.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.bootstrap import environment, traced_service
from discovery.envoy.render import render
from mesh.workloads import Workload
from tests.support import envoy, http, plans
from tests.support.collector import OTLP_PATH, ZIPKIN_PATH, collector
from tests.support.echo import EchoApp
from tests.support.ports import free_port
from tests.support.waiting import wait_for

COLLECTOR = "outbound|4318||collector.tracing.svc.cluster.local"
TRACERS = {
    "opentelemetry": {"kind": "opentelemetry"},
    "opentelemetry-http": {"kind": "opentelemetry-http", "path": OTLP_PATH},
    "zipkin": {"kind": "zipkin", "path": ZIPKIN_PATH},
}
PORTS = {"opentelemetry": "grpc", "opentelemetry-http": "http", "zipkin": "http"}
SOON = {f"tracing.{tracer}.flush_interval_ms": 100 for tracer in ("opentelemetry", "zipkin")}
CALLER = Workload("client-v2", "shop", "client", "v2")
TAGS = [
    {"name": "mesh", "source": "literal", "value": "heddle"},
    {"name": "user", "source": "header", "value": "end-user", "default": "nobody"},
    {"name": "home", "source": "environment", "value": "SOMEWHERE", "default": "here"},
]


@contextmanager
def way(directory: Path, collector_port: int, **tracing: Any) -> Iterator[int]:
    """The gateway's port of a mesh in which gateway, a client's sidecar, and a server's one follow one another."""
    traced = {"destination": COLLECTOR, "host": "collector.tracing", "sampling": 100.0, "tags": TAGS, **tracing}
    ports = {name: free_port() for name in ("gateway", "client", "server")}
    grpc = COLLECTOR if traced["kind"] == "opentelemetry" else ""
    with EchoApp("app") as app:
        hops = {"to-client": ports["client"], "to-server": ports["server"], COLLECTOR: collector_port}
        fields = {
            "reporting": {"client_tracing": traced, "server_tracing": traced},
            "outbound": [
                {"name": name, "address": "0.0.0.0", "port": port, "protocol": "http", "route_table": name}
                for name, port in (("gateway", 80), ("client", 81))
            ],
            "inbound": [
                {
                    "port": ports["server"],
                    "protocol": "http",
                    "peer_tls": "DISABLE",
                    "destination": "app",
                    "route_table": "server",
                }
            ],
            "inbound_default": "DISABLE",
            "route_tables": [_table("gateway", "to-client"), _table("client", "to-server"), _table("server", "app")],
            "destinations": [
                *(
                    {"name": name, "resolution": "endpoints", "protocol": "http2" if name == grpc else "http"}
                    for name in hops
                ),
                {"name": "app", "resolution": "local", "protocol": "http", "address": "127.0.0.1", "port": app.port},
            ],
            "endpoints": [
                {"name": name, "endpoints": [{"address": "127.0.0.1", "port": port, "mesh_tls": False}]}
                for name, port in hops.items()
            ],
        }
        bootstrap = envoy.static_bootstrap(render(plans.plan(fields)), (), free_port())
        bootstrap["node"]["cluster"] = traced_service(CALLER)
        bootstrap["layered_runtime"] = {"layers": [{"name": "soon", "static_layer": SOON}]}
        listeners = {"gateway": [ports["gateway"]], "client": [ports["client"]], "virtualInbound": [ports["server"]]}
        own = environment(CALLER, os.environ)
        with envoy.RunningEnvoy(envoy.bind_listeners(bootstrap, listeners), directory, environment=own):
            yield ports["gateway"]


def _table(name: str, destination: str) -> dict[str, Any]:
    route = {"name": "default", "match": {}, "targets": [{"destination": destination}]}
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


@pytest.mark.parametrize("kind", TRACERS)
def test_one_trace_has_gateway_and_both_sidecars(kind: str, tmp_path: Path) -> None:
    with collector(tmp_path) as taken, way(tmp_path, taken.ports[PORTS[kind]], **TRACERS[kind]) as port:
        answer = http.get(port, headers={"end-user": "jason"})
        wait_for(lambda: len(taken.spans) >= 3)
    assert len(taken.spans) == 3
    trace = taken.spans[0].trace
    assert {span.trace for span in taken.spans} == {trace}
    spans = {span.id: span for span in taken.spans}
    (last,) = spans.keys() - {span.parent for span in taken.spans}
    sides = []
    while last:
        sides.append(spans[last].kind)
        last = spans[last].parent
    assert sides == ["SERVER", "CLIENT", "CLIENT"]
    for span in taken.spans:
        assert span.service == "client.shop"
        assert span.tags.items() >= {"mesh": "heddle", "user": "jason", "home": "here"}.items()
    headers = answer.json["headers"]
    assert headers["traceparent"].split("-")[1] == trace
    assert ("x-b3-traceid" in headers) is (kind == "zipkin")


def test_a_caller_that_traces_decides_for_zipkin(tmp_path: Path) -> None:
    """For OpenTelemetry Envoy 1.40 goes by the percentage, whatever the caller says."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    asked = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with collector(tmp_path) as taken, way(tmp_path, taken.ports["http"], **TRACERS["zipkin"], sampling=0.0) as port:
        assert http.get(port).status == 200
        assert http.get(port, headers=asked).status == 200
        wait_for(lambda: len(taken.spans) >= 3)
    assert {span.trace for span in taken.spans} == {trace}


@pytest.mark.parametrize("kind", TRACERS)
def test_a_collector_that_is_down_harms_no_request(kind: str, tmp_path: Path) -> None:
    with way(tmp_path, free_port(), **TRACERS[kind]) as port:
        assert {http.get(port).status for _ in range(50)} == {200}


@pytest.mark.parametrize("kind", TRACERS)
def test_a_collector_that_never_answers_harms_no_request(kind: str, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        way(tmp_path, silent.getsockname()[1], **TRACERS[kind]) as port,
    ):
        assert {http.get(port).status for _ in range(50)} == {200}
