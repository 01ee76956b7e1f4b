"""A collector of spans for tests: OTLP over gRPC and over HTTP, and Zipkin's JSON, by the messages' own definitions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from local.linux import die_with_parent
from tests.support.ports import free_port
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
OTLP_PATH, ZIPKIN_PATH = "/v1/traces", "/api/v2/spans"
_SERVERS: list[grpc.Server] = []
"""A server ends when nobody refers to it."""
_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Span:
    """`kind`: CLIENT or SERVER. `way`: how it came, `grpc`, `http` or `zipkin`. `parent` is empty for the first."""

    way: str
    trace: str
    id: str
    parent: str
    service: str
    kind: str
    tags: dict[str, str] = field(default_factory=dict)


Take = Callable[[Span], None]


def zipkin_spans(body: bytes) -> Iterator[Span]:
    for each in json.loads(body):
        service, tags = each["localEndpoint"]["serviceName"], each["tags"]
        yield Span("zipkin", each["traceId"], each["id"], each.get("parentId", ""), service, each["kind"], tags)


def otlp_spans(way: str, request: ExportTraceServiceRequest) -> Iterator[Span]:
    for of_resource in request.resource_spans:
        said = {each.key: each.value.string_value for each in of_resource.resource.attributes}
        for scope in of_resource.instrumentation_library_spans:  # as xds-protos calls scope_spans
            for span in scope.spans:
                tags = {each.key: each.value.string_value for each in span.attributes}
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                kind = span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
                yield Span(way, *ids, said["service.name"], kind, tags)


class HttpCollector(ThreadingHTTPServer):
    """Zipkin's JSON and OTLP by HTTP, told apart by their paths."""

    daemon_threads = True

    def __init__(self, take: Take, address: tuple[str, int]) -> None:
        self.take = take
        super().__init__(address, _Post)


class _Post(BaseHTTPRequestHandler):
    server: HttpCollector

    def do_POST(self) -> None:
        body = b"".join(self._body())
        if self.path == ZIPKIN_PATH:
            spans = zipkin_spans(body)
        else:
            assert self.path == OTLP_PATH, self.path
            spans = otlp_spans("http", ExportTraceServiceRequest.FromString(body))
        for span in spans:
            self.server.take(span)
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
        """Nothing: a test shows what came."""


def grpc_collector(take: Take, address: str) -> None:
    """Starts a server of OTLP's TraceService."""

    def export(request: ExportTraceServiceRequest, _: grpc.ServicerContext) -> ExportTraceServiceResponse:
        for span in otlp_spans("grpc", request):
            take(span)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),))
    server.add_insecure_port(address)
    server.start()
    _SERVERS.append(server)


def main(grpc_port: int, http_port: int, file: Path) -> None:
    """Collects until SIGTERM; each span is a line of JSON in `file`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for the threads to come, too
    lock = threading.Lock()
    with file.open("w") as lines:

        def take(span: Span) -> None:
            with lock:
                lines.write(json.dumps(asdict(span)) + "\n")
                lines.flush()

        grpc_collector(take, f"0.0.0.0:{grpc_port}")
        http = HttpCollector(take, ("0.0.0.0", http_port))
        threading.Thread(target=http.serve_forever, daemon=True).start()
        signal.sigwait({signal.SIGTERM})
        os._exit(0)


@dataclass(frozen=True)
class Collector:
    """A running one. `ports` by `grpc`, and `http` (also Zipkin's)."""

    ports: dict[str, int]
    file: Path

    @property
    def spans(self) -> list[Span]:
        """Those so far."""
        return spans_of(self.file.read_text())


def spans_of(text: str) -> list[Span]:
    """What is in a collector's file; its last line may be half written."""
    return [Span(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def collector(directory: Path) -> Iterator[Collector]:
    """One of its own process: gRPC's threads and processes that fork do not get on."""
    made = Collector({"grpc": free_port(), "http": free_port()}, directory / "spans")
    argv = [sys.executable, "-m", __name__, str(made.ports["grpc"]), str(made.ports["http"]), str(made.file)]
    with subprocess.Popen(argv, cwd=ROOT, preexec_fn=die_with_parent) as process:
        try:
            wait_for(lambda: all(map(_open, made.ports.values())))
            yield made
        finally:
            process.terminate()


def _open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
