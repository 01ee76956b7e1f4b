"""gunicorn's threaded worker, with two kinds of threads: many at the door, few at work.

Work is Python code, which the interpreter runs one thread at a time, so few threads are best (docs/adr/0073). But few
threads are easily all taken by connections that shake hands slowly or say nothing: the stock worker gives a new
connection a thread until its first request has come. Here a new connection waits at the poller until it says something,
gets a thread at the door for its handshake, waits at the poller again, and gets a thread at work when there is a
request. How long a handshake and a request may take is bounded by `serving.impatient`.

An answer is one write (`serving.one_write`).
"""

from __future__ import annotations

import resource
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from serving.one_write import answer
from serving.server import Running, Server

DOOR_THREADS = 16
GRACE_SECONDS = 10
LEAST_CONNECTIONS, MOST_CONNECTIONS = 1_000, 16_000  # a silent one is 3 KB
OTHER_DESCRIPTORS = 500


def threaded_server(start: Callable[[], Running], listen: str, *, threads: int, keepalive: int) -> Server:
    """gunicorn with one such worker. `threads` counts those at work; `keepalive` is in seconds."""
    return Server(
        start,
        listen,
        worker_class=Worker,
        worker_connections=_most_connections(),
        threads=threads,
        keepalive=keepalive,
        graceful_timeout=GRACE_SECONDS,
    )


def _most_connections() -> int:
    """As many as there may be descriptors, less some for the rest. Silent connections are kept until `keepalive` is
    over, and above this number nobody else is let in: the stock 1,000 are soon taken by somebody."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(LEAST_CONNECTIONS, min(most - OTHER_DESCRIPTORS, MOST_CONNECTIONS))


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """For gunicorn's setting `worker_class`; the setting `threads` counts those at work."""

    def init_process(self) -> None:
        self._door = ThreadPoolExecutor(DOOR_THREADS, thread_name_prefix="door")
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Give the connection to a thread; called by the poller."""
        if conn.initialized:
            super().enqueue_req(conn)
            return
        if not conn.data_ready:
            self.finish_request(conn, _Deferred)
            return
        entering = self._door.submit(self._enter, conn)
        entering.add_done_callback(lambda done: self.method_queue.defer(self._entered, conn, done))

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Run the application on one request; whether the connection may be used again."""
        last = not self.alive or len(self.keepalived_conns) >= self.max_keepalived
        return answer(self, req, conn.sock, conn.client, conn.server, last=last)

    def _enter(self, conn: TConn) -> bool:
        """The handshake; whether the first request waits already."""
        conn.sock.setblocking(True)
        conn.init()
        poll = select.poll()  # select() knows no descriptors above 1,023
        poll.register(conn.sock, select.POLLIN)
        return conn.sock.pending() > 0 or bool(poll.poll(0))

    def _entered(self, conn: TConn, done: Any) -> None:
        """Called by the poller when a thread at the door is done with the connection."""
        try:
            waits = done.result()
        except Exception as error:  # of the peer's (TLS), or ours (no certificate yet): the next may do better
            self.log.debug("handshake failed: %s", error)
            self.nr_conns -= 1
            conn.close()
            return
        if waits:
            self.enqueue_req(conn)
        else:
            self.finish_request(conn, _Deferred)


class _Deferred:
    """The result by which the stock worker keeps a connection until it says something, or `keepalive` is over."""

    @staticmethod
    def cancelled() -> bool:
        return False

    @staticmethod
    def result() -> object:
        return _DEFER
