"""Counters of the ca, and the plain HTTP port with `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """The ca's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        issued = Counter(
            "heddle_ca_certificates_issued",
            "Certificates issued, by how the caller proved itself",
            ["caller"],
            registry=self.registry,
        )
        self._issued = {kind: issued.labels(kind) for kind in ("token", "certificate")}
        self._refused = Counter(
            "heddle_ca_requests_refused",
            "Requests answered with an error, by its code",
            ["code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "heddle_ca_issue_seconds",
            "Time from the request read to the certificate signed",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._ends = Gauge(
            "heddle_ca_certificate_expiry_timestamp_seconds",
            "When the certificate ends",
            ["certificate"],
            registry=self.registry,
        )

    def issued(self, caller: str, seconds: float) -> None:
        """One certificate went out."""
        self._issued[caller].inc()
        self._seconds.observe(seconds)

    def refused(self, code: str) -> None:
        """One request was answered with an error."""
        self._refused.labels(code).inc()

    def ends(self, certificate: str, at: float) -> None:
        """`certificate`: root, intermediate or serving."""
        self._ends.labels(certificate).set(at)


class HealthServer:
    """Answers in daemon threads. `ready` returns None, or what is missing."""

    def __init__(self, address: tuple[str, int], metrics: Metrics, ready: Callable[[], str | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version = "heddle"
            sys_version = ""

            def do_GET(self) -> None:
                status, kind, body = _answer(self.path.partition("?")[0], metrics, ready)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Probes come every few seconds; they are not worth a line each."""

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


def _answer(path: str, metrics: Metrics, ready: Callable[[], str | None]) -> tuple[int, str, bytes]:
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)
    if path == "/healthz":
        return 200, "text/plain", b"ok\n"
    if path == "/readyz":
        missing = ready()
        return (503, "text/plain", missing.encode() + b"\n") if missing else (200, "text/plain", b"ok\n")
    return 404, "text/plain", b"there are /metrics, /healthz and /readyz\n"
