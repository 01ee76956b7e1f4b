"""gunicorn's threaded worker, in which no thread ever waits for a peer.

Work is Python code, which the interpreter runs one thread at a time, so few threads are best (docs/adr/0073). But few
threads are easily all taken: the stock worker gives a connection a thread that waits for its handshake, for the rest of
its request, and for it to take the answer. Here a connection has a thread only for a step that does not wait
(`serving.connection`): some threads at the door shake hands, others read a request, answer it when it is complete, and
write. In between, the connection waits at the poller, which bounds how long that may take (ADR 0243).

An answer is one write (`serving.one_write`).
"""

from __future__ import annotations

import errno
import resource
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice, takewhile
from operator import itemgetter
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from serving.connection import READABLE, WRITABLE, Connection, Wait
from serving.one_write import answer
from serving.server import Running, Server

DOOR_THREADS = 4
GRACE_SECONDS = 10
LINGER_SECONDS = 2.0
"""For the peer to close its side, after an answer that is the last."""
LEAST_CONNECTIONS, MOST_CONNECTIONS = 1_000, 16_000  # a silent one is 3 KB
OTHER_DESCRIPTORS = 500
LEAST_SECONDS = 1.0
"""A connection is kept for, also where there is no room for more."""
MOST_HELD = 64 << 20
"""Bytes of requests that are not complete and answers that are not taken, of all connections."""
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_NOBODY = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)


def threaded_server(
    start: Callable[[], Running], listen: str, *, threads: int, keepalive: int, max_body: int
) -> Server:
    """gunicorn with one such worker. `threads` counts those at work; `keepalive` is in seconds. `max_body` is in bytes:
    a request with a larger body is given to the application without waiting for all of it."""

    class Limited(Worker):
        largest_body = max_body

    return Server(
        start,
        listen,
        worker_class=Limited,
        worker_connections=_most_connections(),
        threads=threads,
        keepalive=keepalive,
        graceful_timeout=GRACE_SECONDS,
    )


def _most_connections() -> int:
    """As many as there may be descriptors, less some for the rest. The stock 1,000 are soon taken by somebody."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(LEAST_CONNECTIONS, min(most - OTHER_DESCRIPTORS, MOST_CONNECTIONS))


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """For gunicorn's setting `worker_class`; the setting `threads` counts those at work.

    All but `handle`, `handle_request` and `_enter` is called by the poller's thread alone.
    """

    largest_body = 0

    def init_process(self) -> None:
        self._door = ThreadPoolExecutor(DOOR_THREADS, thread_name_prefix="door")
        self._unfinished: dict[Connection, float] = {}  # until when, the oldest first
        self._leaving: dict[Connection, float] = {}
        self._held = 0
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """A new connection, which waits at the poller until it says something."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in _NOBODY:
                return
            raise
        self.nr_conns += 1
        conn = Connection(self.cfg, sock, client, listener.getsockname(), self.largest_body)
        self._await_request(conn)

    def enqueue_req(self, conn: Connection) -> None:
        """Give the connection to a thread."""
        if conn.initialized:
            super().enqueue_req(conn)
            return
        entering = self._door.submit(conn.shake)
        entering.add_done_callback(lambda done: self.method_queue.defer(self._entered, conn, done))

    def handle(self, conn: Connection) -> Wait | bool:
        """Read what is there; if that is a request, answer it. Otherwise, what to wait for."""
        try:
            wait = conn.receive()
        except (OSError, EOFError) as error:
            self.log.debug("connection ended: %s", error)
            return False
        return wait if wait is not None else bool(super().handle(conn))

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Run the application on one request; whether the connection may be used again."""
        last = not self.alive or len(self.keepalived_conns) >= self.max_keepalived
        req._expected_100_continue = False  # what it waited for has come, or will not be read
        return answer(self, req, conn.sock, conn.client, conn.server, last=last)

    def finish_request(self, conn: Connection, done: Future[Wait | bool]) -> None:
        """When a thread at work is done with the connection."""
        try:
            result = done.result()
        except Exception:
            self.log.exception("failed outside of a request")
            result = False
        if isinstance(result, Wait):
            self._await(conn, result)
        else:
            self._forget(conn)
            conn.keep = result
            self._written(conn)

    def murder_pending(self) -> None:
        """End what has taken too long, and what there is no room for.

        Called when all events of one look at the poller have been dealt with, and at least once a second: none of
        them is of a connection that is closed here."""
        super().murder_pending()
        now = time.monotonic()
        for conn in _before(now, self._unfinished):
            if conn.waiting:
                self._give_up(conn, _TIMEOUT)
        for conn in _before(now, self._leaving):
            self._left(conn)
        if self._held > MOST_HELD:
            self._shed()
        if self.nr_conns >= self.worker_connections:  # gunicorn lets nobody in then
            self._make_room()

    def _entered(self, conn: Connection, done: Future[Wait | None]) -> None:
        """When a thread at the door is done with the connection."""
        error = done.exception()
        if error is not None:  # of the peer's (TLS), or ours (no certificate yet): the next may do better
            self.log.debug("handshake failed: %s", error)
            self._close(conn)
            return
        wait = done.result()
        if wait is not None:
            self._await(conn, wait)
            return
        self._forget(conn)
        if conn.has_more():
            self.enqueue_req(conn)
        else:
            self._await_request(conn)

    def _written(self, conn: Connection) -> None:
        """An answer was written, as far as the peer takes it."""
        if conn.sock.fileno() >= 0 and conn.sock.unsent:
            self._await(conn, WRITABLE, self._on_writable)
        elif not conn.keep:
            self._leave(conn)
        elif conn.has_more():
            self.enqueue_req(conn)
        else:
            conn.set_timeout()
            if not self.alive:
                conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
            self.keepalived_conns.append(conn)
            self._register(conn, READABLE, partial(self.on_client_socket_readable, conn))

    def _on_writable(self, conn: Connection) -> None:
        before = len(conn.sock.unsent)
        try:
            conn.sock.flush()
        except OSError:
            self._close(conn)
            return
        if len(conn.sock.unsent) < before:
            self._forget(conn)  # its patience begins anew
        self._written(conn)

    def _await_request(self, conn: Connection) -> None:
        """Keep a connection that has said nothing yet, until `keepalive` is over."""
        conn.set_timeout()
        self.pending_conns.append(conn)
        self._register(conn, READABLE, partial(self.on_pending_socket_readable, conn))

    def _await(self, conn: Connection, wait: Wait, then: Callable[[Connection], None] | None = None) -> None:
        """Keep a connection that is in the middle of something, and has until its patience is over for all of it."""
        now = time.monotonic()
        if self._unfinished.setdefault(conn, now + conn.patience) <= now:
            self._give_up(conn, _TIMEOUT)
            return
        conn.waiting = True
        self._register(conn, wait, partial(self._on_ready, conn, then or self.enqueue_req))
        self._count(conn, conn.held)

    def _on_ready(self, conn: Connection, then: Callable[[Connection], None], _sock: Any) -> None:
        conn.waiting = False
        self.poller.unregister(conn.sock)
        then(conn)

    def _shed(self) -> None:
        """Give up the slowest of those that hold at least as much as the average, until there is some room."""
        average = self._held / len(self._unfinished)
        for conn in list(self._unfinished):
            if self._held <= MOST_HELD * 7 / 8:
                return
            if conn.waiting and conn.counted >= average:
                self._give_up(conn, _FULL)

    def _make_room(self) -> None:
        """Give up one connection: the oldest that has not sent a whole request, or else the one unused for longest.

        One that is new is left its time to say something: others may only seem to be busy, in a queue for a thread.
        """
        silent = ((conn.timeout - self.cfg.keepalive, conn) for conn in islice(self.pending_conns, 1))
        slow = ((until - conn.patience, conn) for conn, until in self._unfinished.items() if conn.waiting)
        kept = ((conn.timeout - self.cfg.keepalive, conn) for conn in islice(self.keepalived_conns, 1))
        oldest = min((*silent, *islice(slow, 1)), key=itemgetter(0), default=None) or next(kept, None)
        if oldest is None or oldest[0] > time.monotonic() - LEAST_SECONDS:
            return
        conn = oldest[1]
        for waiting in (self.pending_conns, self.keepalived_conns):
            if waiting and conn is waiting[0]:
                waiting.popleft()
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _give_up(self, conn: Connection, why: bytes) -> None:
        """End a connection that is in the middle of something."""
        if conn.waiting:
            conn.waiting = False
            self.poller.unregister(conn.sock)
        if not conn.begun:  # a handshake, or an answer
            self._close(conn)
            return
        try:
            conn.sock.sendall(why)
        except OSError:
            self._close(conn)
        else:
            self._forget(conn)
            self._leave(conn)

    def _leave(self, conn: Connection) -> None:
        """Close, when the peer has: otherwise it might not see the answer."""
        if not conn.half_close():
            self._close(conn)
            return
        self._leaving[conn] = time.monotonic() + LINGER_SECONDS
        self._register(conn, READABLE, partial(self._on_leaving, conn))

    def _on_leaving(self, conn: Connection, _sock: Any) -> None:
        if not conn.drain():
            self._left(conn)

    def _left(self, conn: Connection) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self._forget(conn)
        self.nr_conns -= 1
        conn.close()

    def _forget(self, conn: Connection) -> None:
        """It is in the middle of nothing any more."""
        self._unfinished.pop(conn, None)
        self._count(conn, 0)

    def _count(self, conn: Connection, held: int) -> None:
        self._held += held - conn.counted
        conn.counted = held

    def _register(self, conn: Connection, wait: Wait, then: Callable[[Any], None]) -> None:
        self.poller.register(conn.sock, wait.events, then)


def _before(now: float, conns: dict[Connection, float]) -> list[Connection]:
    """Those whose time is over; the first to end come first."""
    return [conn for conn, _ in takewhile(lambda item: item[1] <= now, conns.items())]
