"""Real Envoys on the way of a request, gateway, client's sidecar and server's, and a collector that takes their spans.

One Envoy plays the gateway and the client's sidecar: what a hop adds is in the headers, whoever plays it. Listeners are
bound to loopback ports, and nothing is encrypted.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.bootstrap import environment, traced_service
from discovery.envoy.render import render
from mesh.workloads import Workload
from tests.support import envoy, http, plans
from tests.support.echo import EchoApp
from tests.support.ports import free_port
from tests.support.waiting import wait_for

COLLECTOR = "outbound|4318||collector.tracing.svc.cluster.local"
TRACERS = {
    "opentelemetry-http": {"kind": "opentelemetry-http", "path": "/v1/traces"},
    "zipkin": {"kind": "zipkin", "path": "/api/v2/spans"},
}
SOON = {f"tracing.{tracer}.flush_interval_ms": 100 for tracer in ("opentelemetry", "zipkin")}
CALLER = Workload("client-v2", "shop", "client", "v2")
TAGS = [
    {"name": "mesh", "source": "literal", "value": "heddle"},
    {"name": "user", "source": "header", "value": "end-user", "default": "nobody"},
    {"name": "home", "source": "environment", "value": "SOMEWHERE", "default": "here"},
]


class Collector(ThreadingHTTPServer):
    """`spans`: (trace, span, parent, service, kind, tags) of each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.spans: list[tuple[str, str, str, str, str, dict[str, str]]] = []

    def take(self, path: str, body: bytes) -> None:
        if path == TRACERS["zipkin"]["path"]:
            for span in json.loads(body):
                ids = (span["traceId"], span["id"], span.get("parentId", ""))
                self.spans.append((*ids, span["localEndpoint"]["serviceName"], span["kind"], span["tags"]))
            return
        assert path == TRACERS["opentelemetry-http"]["path"]
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            said = {each.key: each.value.string_value for each in of_resource.resource.attributes}
            for scope in of_resource.instrumentation_library_spans:  # as xds-protos calls scope_spans
                for span in scope.spans:
                    tags = {each.key: each.value.string_value for each in span.attributes}
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    kind = span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
                    self.spans.append((*ids, said["service.name"], kind, tags))


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.take(self.path, b"".join(self._body()))
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()

    def _body(self) -> Iterator[bytes]:
        """Envoy sends chunks, of which an empty one is the last, or says the length."""
        if "content-length" in self.headers:
            yield self.rfile.read(int(self.headers["content-length"]))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test shows what came."""


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def way(directory: Path, collector_port: int, **tracing: Any) -> Iterator[int]:
    """The gateway's port of a mesh in which gateway, a client's sidecar, and a server's one follow one another."""
    traced = {"destination": COLLECTOR, "host": "collector.tracing", "sampling": 100.0, "tags": TAGS, **tracing}
    ports = {name: free_port() for name in ("gateway", "client", "server")}
    to = {"endpoints": "endpoints", "protocol": "http"}
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
                *({"name": name, "resolution": to["endpoints"], "protocol": to["protocol"]} for name in hops),
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
    with collector() as taken, way(tmp_path, taken.server_port, **TRACERS[kind]) as port:
        answer = http.get(port, headers={"end-user": "jason"})
        wait_for(lambda: len(taken.spans) >= 3)
    assert len(taken.spans) == 3
    assert {trace for trace, *_ in taken.spans} == {taken.spans[0][0]}
    spans = {span: (parent, side) for _, span, parent, _, side, _ in taken.spans}
    (last,) = spans.keys() - {parent for parent, _ in spans.values()}
    sides = []
    while last:
        last, side = spans[last]
        sides.append(side)
    assert sides == ["SERVER", "CLIENT", "CLIENT"]
    for *_, service, _, tags in taken.spans:
        assert service == "client.shop"
        assert tags.items() >= {"mesh": "heddle", "user": "jason", "home": "here"}.items()
    headers = answer.json["headers"]
    assert headers["traceparent"].split("-")[1] == taken.spans[0][0]
    assert ("x-b3-traceid" in headers) is (kind == "zipkin")


def test_a_caller_that_traces_decides_for_zipkin(tmp_path: Path) -> None:
    """For OpenTelemetry Envoy 1.40 goes by the percentage, whatever the caller says."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    asked = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with collector() as taken, way(tmp_path, taken.server_port, **TRACERS["zipkin"], sampling=0.0) as port:
        assert http.get(port).status == 200
        assert http.get(port, headers=asked).status == 200
        wait_for(lambda: len(taken.spans) >= 3)
    assert {span[0] for span in taken.spans} == {trace}


@pytest.mark.parametrize("kind", TRACERS)
def test_a_collector_that_is_down_harms_no_request(kind: str, tmp_path: Path) -> None:
    with way(tmp_path, free_port(), **TRACERS[kind]) as port:
        assert {http.get(port).status for _ in range(50)} == {200}
