"""gunicorn round discovery: one gevent worker for the agents' port; the plain ports are served within it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer
from gunicorn.workers.ggevent import GeventWorker

from discovery.connection import Connection, Waiting
from serving.operator_socket import listen
from serving.server import Running, Server

CONNECTIONS = 20_000
SWEEP_SECONDS = 1.0


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's part is to listen, to shake hands (tls.py) and to live and end; connection.py is what is said.

    Told to stop, it answers held requests and closes connections as soon as they have no request.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting = Waiting(time.monotonic)

    def run(self) -> None:
        """Until told to stop."""
        gevent.spawn(self._sweep)
        super().run()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """One connection, in a greenlet of its own."""
        try:
            Connection(client, self.wsgi, self._waiting, lambda: not self.alive).serve()
        except OSError as error:
            self.log.info("connection ended: %s", error)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """SIGTERM. A signal handler must not wait, so a greenlet does it."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._end)

    def _sweep(self) -> None:
        while True:
            gevent.sleep(SWEEP_SECONDS)
            self._waiting.sweep()

    def _end(self) -> None:
        self.app.close()
        self._waiting.end()


def create_server(start: Callable[[], Running], listen: str) -> Server:
    """gunicorn with one such worker."""
    return Server(
        start,
        listen,
        worker_class=Worker,
        worker_connections=CONNECTIONS,
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
