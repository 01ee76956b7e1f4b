"""gunicorn's threaded worker with two kinds of threads: many at the door, few at work.

Work is Python code, which the interpreter runs one thread at a time: with 8 threads the slowest hundredth of requests
took 30 ms, with 2 it takes 10 (tests/bench/bench_inject.py). But few threads are easily all taken by connections that
shake hands slowly or say nothing. So a new connection waits at the poller until it says something, gets a thread at the
door for its handshake, waits at the poller again, and gets a thread at work when there is a request. What a request
sends must be complete within `serving.REQUEST_SECONDS`.
"""

from __future__ import annotations

import select
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

DOOR_THREADS = 16


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """For gunicorn's setting `worker_class`."""

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

    def _enter(self, conn: TConn) -> bool:
        """The handshake; whether the first request waits already."""
        conn.sock.setblocking(True)
        conn.init()
        return conn.sock.pending() > 0 or bool(select.select([conn.sock], [], [], 0)[0])

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
