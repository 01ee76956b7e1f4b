"""gunicorn round the webhook: one gthread worker, HTTPS, and the plain port for health and metrics beside it."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gunicorn.app.base import BaseApplication
from werkzeug.serving import WSGIRequestHandler, make_server

from mesh.errors import InvalidInput
from webhook.app import Deps, create_app, create_health_app
from webhook.logs import GunicornLog
from webhook.worker import Worker

THREADS = 2  # webhook/worker.py says why
KEEPALIVE = 75  # seconds; API servers keep their connections


@dataclass(frozen=True, slots=True)
class Running:
    """What lives in the worker process: the app's needs, the context for each new connection, and how to end."""

    deps: Deps
    context: Callable[[], ssl.SSLContext]
    close: Callable[[], None]


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`start` is called in the worker, after the fork: threads and keys are made where they are used."""

    def __init__(self, start: Callable[[], Running], listen: str, health_listen: str, threads: int = THREADS) -> None:
        self._start = start
        self._listen = listen
        self._health_listen = health_listen
        self._threads = threads
        self._running: Running | None = None
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "bind": self._listen,
            "worker_class": Worker,
            "workers": 1,
            "threads": self._threads,
            "keepalive": KEEPALIVE,
            "graceful_timeout": 10,
            "logger_class": GunicornLog,
            "control_socket_disable": True,
            # gunicorn speaks TLS when there is a certificate file; the contexts are made by `ssl_context`.
            "certfile": os.devnull,
            "ssl_context": lambda _config, _default: self._context(),
            "worker_exit": lambda _server, _worker: self._end(),
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application, in the worker."""
        self._running = self._start()
        serve_health(self._running.deps, self._health_listen)
        return create_app(self._running.deps)

    def _end(self) -> None:
        if self._running is not None:
            self._running.close()

    def _context(self) -> ssl.SSLContext:
        assert self._running is not None
        return self._running.context()


def serve_health(deps: Deps, listen: str) -> None:
    """Answer `/healthz`, `/readyz` and `/metrics` in plain HTTP at `listen`, in daemon threads."""
    host, port = address(listen)
    server = make_server(host, port, create_health_app(deps), threaded=True, request_handler=_Quiet)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


def address(text: str) -> tuple[str, int]:
    """`host:port` in two; InvalidInput when it is not that."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidInput(f"{text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log(self, type: str, message: str, *args: Any) -> None:
        """Probes come every few seconds; they are not worth a line each."""
