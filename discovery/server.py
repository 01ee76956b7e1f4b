"""gunicorn round discovery: one gevent worker for the HTTPS port; the plain ports are served within it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer
from gunicorn.app.base import BaseApplication
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from discovery.logs import GunicornLog
from discovery.serving import Certificate, Rotating

KEEPALIVE_SECONDS = 70
IO_SECONDS = 75.0
"""For each read and write: more than an agent waits between two polls. Holding a request is neither."""
CONNECTIONS = 20_000


@dataclass(frozen=True, slots=True)
class Running:
    """A started discovery: its WSGI application, its certificate, and what ends it."""

    app: Any
    certificate: Certificate
    close: Callable[[], None]


class _Idle:
    """A silent timeout (the block is left, nothing is raised). `idle` knows it, so that it can be made to come early."""

    def __init__(self, seconds: float, idle: dict[gevent.Timeout, gevent.Greenlet]) -> None:
        self._timeout, self._idle = gevent.Timeout(seconds, False), idle

    def __enter__(self) -> None:
        self._timeout.start()
        self._idle[self._timeout] = gevent.getcurrent()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        del self._idle[self._timeout]
        self._timeout.close()
        return error is self._timeout


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """Ends quickly: told to stop, it answers held requests and closes connections as soon as they have no request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle: dict[gevent.Timeout, gevent.Greenlet] = {}

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """As GeventWorker's, which would let a silent peer keep a write waiting for ever."""
        client.settimeout(IO_SECONDS)
        AsyncWorker.handle(self, listener, client, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """gunicorn decides about keep-alive before a request is held, so look again when it is answered."""
        result = super().handle_request(listener_name, req, sock, addr)
        if not self.alive:
            raise StopIteration
        return result

    def timeout_ctx(self) -> _Idle:
        """Round the wait for a connection's next request."""
        return _Idle(self.cfg.keepalive, self._idle)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """SIGTERM. A signal handler must not wait, so a greenlet does it."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._end)

    def _end(self) -> None:
        self.app.close()
        for timeout, waiting in list(self._idle.items()):
            gevent.kill(waiting, timeout)


class Server(BaseApplication):  # type: ignore[misc]
    """`start` is called in the worker: nothing is read or connected before."""

    def __init__(self, start: Callable[[], Running], listen: str) -> None:
        self._start, self._listen = start, listen
        self._running: Running | None = None
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "bind": self._listen,
            "worker_class": Worker,
            "workers": 1,
            "worker_connections": CONNECTIONS,
            "keepalive": KEEPALIVE_SECONDS,
            "timeout": 120,
            "graceful_timeout": 5,
            "logger_class": GunicornLog,
            "control_socket_disable": True,
            # gunicorn speaks TLS when there is a certificate file; the contexts come from `ssl_context`, from memory.
            "certfile": os.devnull,
            "ssl_context": lambda _config, _default: Rotating(self._current().certificate),
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        self._running = self._start()
        return self._running.app

    def close(self) -> None:
        """Answer what is held."""
        if self._running is not None:
            self._running.close()

    def _current(self) -> Running:
        assert self._running is not None
        return self._running


def serve_plain(address: tuple[str, int], app: Any) -> WSGIServer:
    """Serve `app` in plain HTTP from a greenlet of this process."""
    server = WSGIServer(address, app, log=None, error_log=None)
    server.start()
    return server
