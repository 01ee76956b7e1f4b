"""gunicorn round discovery: one gevent worker for the HTTPS port; the plain ports are served within it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from serving.one_write import answer
from serving.operator_socket import listen
from serving.server import Running, Server

KEEPALIVE_SECONDS = 25
IO_SECONDS = 30.0
"""For each read and write: a client that does not read its answer is given up. Holding a request is neither."""
CONNECTIONS = 20_000


class _Idle:
    """A silent timeout (the block is left, nothing is raised). `idle` knows it, and can make it come early."""

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
        """As GeventWorker's, with answers that are one write.

        Whether the connection stays open is asked again when the request, which may have been held, is answered.
        """
        if not answer(self, req, sock, addr, listener_name, last=not self.alive) or not self.alive:
            raise StopIteration
        return True

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


def create_server(start: Callable[[], Running], listen: str) -> Server:
    """gunicorn with one such worker."""
    return Server(
        start,
        listen,
        worker_class=Worker,
        worker_connections=CONNECTIONS,
        keepalive=KEEPALIVE_SECONDS,
        timeout=120,
        graceful_timeout=5,
    )


def serve_plain(address: tuple[str, int], app: Any) -> WSGIServer:
    """Serve `app` in plain HTTP from a greenlet of this process."""
    server = WSGIServer(address, app, log=None, error_log=None)
    server.start()
    return server


def serve_on_socket(place: Path, app: Any) -> None:
    """Serve `app` on a Unix socket that this process's own user alone can open. Whatever was at `place` is replaced."""
    WSGIServer(listen(place), app, log=None, error_log=None).start()
