"""The plain HTTP port with `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from discovery.metrics import Metrics


def create_health_app(metrics: Metrics, not_ready: Callable[[], str]) -> Flask:
    """`not_ready` says what is missing; "" when nothing is."""
    app = Flask("discovery.health", static_folder=None)

    @app.get("/metrics")
    def numbers() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    def alive() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @app.get("/readyz")
    def ready() -> Response:
        missing = not_ready()
        return Response(f"{missing or 'ok'}\n", 503 if missing else 200, mimetype="text/plain")

    return app
