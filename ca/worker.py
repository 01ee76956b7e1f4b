"""gunicorn's threaded worker, made safe against connections that say nothing.

The stock worker gives a new connection a thread until its first request has come, so as many silent clients as there are
threads stop the service. Here a connection whose handshake is over and that sends nothing yet goes back to the poller. The
handshake itself is bounded by `serving.SOCKET_TIMEOUT`.
"""

from __future__ import annotations

import select
import ssl
from typing import Any

from gunicorn.workers.gthread import _DEFER, DEFAULT_WORKER_DATA_TIMEOUT, TConn, ThreadWorker


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """As the setting `worker_class`."""

    def handle(self, conn: TConn) -> Any:
        """One request, or the handshake of a new connection. Runs in a thread of the pool."""
        if not conn.initialized:
            if not conn.data_ready and not conn.wait_for_data(DEFAULT_WORKER_DATA_TIMEOUT):
                return _DEFER
            try:
                conn.sock.setblocking(True)
                conn.init()
            except (ssl.SSLError, OSError) as error:
                self.log.debug("handshake failed: %s", error)
                return False
            if not conn.sock.pending() and not _readable(conn.sock):
                return _DEFER
        return super().handle(conn)


def _readable(connection: ssl.SSLSocket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])
