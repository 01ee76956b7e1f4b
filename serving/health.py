"""The plain HTTP port with `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from werkzeug.serving import WSGIRequestHandler, make_server


def create_health_app(name: str, metrics: Callable[[], bytes], not_ready: Callable[[], str]) -> Flask:
    """`/healthz`: this process answers. `/readyz`: it can work; `not_ready` says what is missing, "" for nothing.

    `metrics` returns Prometheus' text format.
    """
    app = Flask(name, static_folder=None)

    @app.get("/metrics")
    def numbers() -> Response:
        return Response(metrics(), content_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    def alive() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @app.get("/readyz")
    def ready() -> Response:
        missing = not_ready()
        return Response(f"{missing or 'ok'}\n", 503 if missing else 200, mimetype="text/plain")

    return app


def serve_in_threads(address: tuple[str, int], app: Flask) -> None:
    """Serve `app` in plain HTTP, in daemon threads, for the life of the process. OSError when the address is taken."""
    host, port = address
    # Bound here: when werkzeug cannot bind, it prints and ends the process.
    with socket.create_server(address, family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        server = make_server(host, port, app, threaded=True, request_handler=_Quiet, fd=listener.fileno())
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log(self, type: str, message: str, *args: Any) -> None:
        """Probes come every few seconds; they are not worth a line each."""
