"""gunicorn's threaded worker, in which no thread ever waits for a peer, and most requests need none.

One thread, the poller's, reads all connections and answers what needs nobody else (`Service.at_once`): passing a
request to another thread and back costs as much as half of the work on it, and Python runs one thread at a time. What
came in one look at the connections is answered together. What has to wait for somebody, an API server mostly, is
answered by the threads at work, and a few threads at the door shake hands. No step waits for the peer
(`serving.connection`): in between the connection is at the poller, which bounds how long that may take (ADR 0243, 0244,
0246).
"""

from __future__ import annotations

import errno
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import takewhile
from typing import Any, Protocol

import structlog
from gunicorn.workers.gthread import ThreadWorker

from serving.connection import Connection, Wait
from serving.http1 import Answer, Handler, Refused, Request, error_answer
from serving.server import Running, Server

DOOR_THREADS = 4
GRACE_SECONDS = 10
LINGER_SECONDS = 2.0
"""For the peer to close its side, after an answer that is the last; and for one more request when the worker ends."""
LEAST_CONNECTIONS, MOST_CONNECTIONS = 1_000, 16_000  # a silent one is 3 KB
OTHER_DESCRIPTORS = 500
LEAST_SECONDS = 1.0
"""A connection is kept for, also where there is no room for more."""
MOST_HELD = 64 << 20
"""Bytes of requests that are not complete and answers that are not taken, of all connections; and as many of requests
that wait for a thread."""
MOST_TOGETHER = 16
"""Requests that are answered together: the first of them waits for the last."""
_TIMEOUT = error_answer(408, "timeout", "the request did not arrive in time")
_FULL = error_answer(503, "busy", "too much is asked at once")
_FAILED = error_answer(500, "internal", "the service failed; its log says why")
_NOBODY = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)

log = structlog.get_logger("serving")


class Service(Protocol):
    """What `Running.app` is for this worker. An exception is answered 500."""

    def at_once(self, requests: Sequence[Request]) -> Sequence[Answer | None]:
        """The answer to each of up to `MOST_TOGETHER` requests, if it needs neither network nor much time; None, and
        nothing has been done, if not."""

    def __call__(self, request: Request) -> Answer:
        """The answer, in a thread that may wait."""


class InThreads:
    """A Service that always may have to wait."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def at_once(self, requests: Sequence[Request]) -> Sequence[Answer | None]:
        """None to each."""
        return [None] * len(requests)

    def __call__(self, request: Request) -> Answer:
        return self._handler(request)


def threaded_server(
    start: Callable[[], Running], listen: str, *, threads: int, keepalive: int, max_body: int
) -> Server:
    """gunicorn with one such worker, for which `Running.app` is a Service. `threads` counts those at work; `keepalive`
    is in seconds, `max_body`, of a request, in bytes."""

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

    All but `_work` is called by the poller's thread alone. A connection is in one of the tables, or with a thread.

    A connection whose request is complete waits in `_ready` until all others have been looked at.
    """

    largest_body = 0

    def init_process(self) -> None:
        self._door = ThreadPoolExecutor(DOOR_THREADS, thread_name_prefix="door")
        # Each in the order of its times, the oldest first.
        self._silent: dict[Connection, float] = {}  # since when; no request has come of these yet
        self._kept: dict[Connection, float] = {}  # since when, between two requests
        self._unfinished: dict[Connection, float] = {}  # until when
        self._leaving: dict[Connection, float] = {}  # until when
        self._ready: dict[Connection, None] = {}
        self._held = self._queued = 0
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
        conn = Connection(self.cfg, sock, client, self.largest_body)
        self._silent[conn] = time.monotonic()
        self._watch(conn, Wait.READABLE, self._knock)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """One look at all connections, and the answers to what had come whole.

        Who has sent more ahead than was answered here has its turn after the next look, which then does not wait."""
        super().wait_for_and_dispatch_events(0.0 if self._ready else timeout)
        ready, self._ready = list(self._ready), {}
        for at in range(0, len(ready), MOST_TOGETHER):
            self._serve(ready[at : at + MOST_TOGETHER])

    def murder_pending(self) -> None:
        """End what has taken too long, and what there is no room for.

        Called when all events of one look at the poller have been dealt with, and at least once a second: none of
        them is of a connection that is closed here."""
        now = time.monotonic()
        since = now - (self.cfg.keepalive if self.alive else min(self.cfg.keepalive, LINGER_SECONDS))
        for conn in [*_before(since, self._silent), *_before(since, self._kept), *_before(now, self._leaving)]:
            self._close(conn)
        for conn in _before(now, self._unfinished):
            self._give_up(conn, _TIMEOUT)
        if self._held > MOST_HELD:
            self._shed()
        if self.nr_conns >= self.worker_connections:  # gunicorn lets nobody in then
            self._make_room()

    def _knock(self, conn: Connection) -> None:
        """The handshake goes on, at the door."""
        self._unwatch(conn)
        self._silent.pop(conn, None)
        entering = self._door.submit(conn.shake)
        entering.add_done_callback(lambda done: self.method_queue.defer(self._entered, conn, done))

    def _entered(self, conn: Connection, done: Future[Wait | None]) -> None:
        """When a thread at the door is done with the connection."""
        error = done.exception()
        if error is not None:  # of the peer's (TLS), or ours (no certificate yet): the next may do better
            self.log.debug("handshake failed: %s", error)
            self._close(conn)
            return
        wait = done.result()
        if wait is not None:
            self._await(conn, wait, self._knock)
            return
        self._forget(conn)
        if conn.has_more():
            self._read(conn)
        else:
            self._silent[conn] = time.monotonic()
            self._watch(conn, Wait.READABLE, self._read)

    def _read(self, conn: Connection) -> None:
        """There is something to read, which may be a request."""
        if conn in self._ready:  # one that it has sent already has its turn first
            return
        try:
            wait = conn.receive()
        except Refused as refused:
            self._refuse(conn, refused.answer)
        except (OSError, EOFError) as error:
            self.log.debug("connection ended: %s", error)
            self._close(conn)
        else:
            if wait is None:
                self._get_ready(conn)
            else:
                self._await(conn, wait, self._read)

    def _get_ready(self, conn: Connection) -> None:
        self._forget(conn)
        self._ready[conn] = None

    def _serve(self, conns: Sequence[Connection]) -> None:
        """Answer the next request of each, at once or by a thread."""
        requests = [conn.requests.whole.popleft() for conn in conns]
        answers = _answers(self.wsgi.at_once, requests)
        for conn, request, answer in zip(conns, requests, answers, strict=True):
            conn.last = request.last or not self.alive
            if answer is not None:
                self._say(conn, request.method, answer)
            elif self._queued + len(request.body) > MOST_HELD:
                self._refuse(conn, _FULL)
            else:
                self._entrust(conn, request)

    def _entrust(self, conn: Connection, request: Request) -> None:
        """Leave it to a thread."""
        self._unwatch(conn)
        self._queued += len(request.body)
        working = self.tpool.submit(self._work, conn, request)
        working.add_done_callback(lambda done: self.method_queue.defer(self._worked, conn, len(request.body), done))

    def _work(self, conn: Connection, request: Request) -> None:
        """In a thread."""
        conn.say(request.method, _answer(self.wsgi, request))

    def _worked(self, conn: Connection, size: int, done: Future[None]) -> None:
        """When a thread is done with the connection, and a request with a body of that size."""
        self._queued -= size
        error = done.exception()
        if error is None:
            self._said(conn)
            return
        if isinstance(error, OSError):
            self.log.debug("connection ended: %s", error)
        else:
            log.error("an answer cannot be said", exc_info=error)
        self._close(conn)

    def _say(self, conn: Connection, method: str, answer: Answer) -> None:
        try:
            conn.say(method, answer)
        except OSError as error:
            self.log.debug("connection ended: %s", error)
            self._close(conn)
        else:
            self._said(conn)

    def _refuse(self, conn: Connection, answer: Answer) -> None:
        """Say it, as the last that is said."""
        conn.last = True
        self._forget(conn)
        self._say(conn, "", answer)

    def _said(self, conn: Connection) -> None:
        """An answer was written, as far as the peer takes it."""
        if conn.unsent:
            self._await(conn, Wait.WRITABLE, self._flush)
        elif conn.last:
            self._leave(conn)
        elif conn.requests.whole:
            self._get_ready(conn)
        elif conn.has_more():
            self._read(conn)
        elif conn.begun:
            self._await(conn, Wait.READABLE, self._read)
        else:
            self._forget(conn)
            self._kept[conn] = time.monotonic()
            self._watch(conn, Wait.READABLE, self._read)

    def _flush(self, conn: Connection) -> None:
        before = conn.unsent
        try:
            conn.sock.flush()
        except OSError:
            self._close(conn)
            return
        if conn.unsent < before:
            self._forget(conn)  # its patience begins anew
        self._said(conn)

    def _await(self, conn: Connection, wait: Wait, then: Callable[[Connection], None]) -> None:
        """Keep a connection that is in the middle of something, and has until its patience is over for all of it."""
        self._silent.pop(conn, None)
        self._kept.pop(conn, None)
        self._unfinished.setdefault(conn, time.monotonic() + conn.patience)
        self._watch(conn, wait, then)
        self._count(conn, conn.held)

    def _shed(self) -> None:
        """Give up the slowest of those that hold at least as much as the average, until there is some room."""
        average = self._held / len(self._unfinished)
        for conn in list(self._unfinished):
            if self._held <= MOST_HELD * 7 / 8:
                return
            if conn.watched and conn.counted >= average:
                self._give_up(conn, _FULL)

    def _make_room(self) -> None:
        """Give up one connection: the oldest that has not sent a whole request, or else the one unused for longest.

        One that is new is left its time to say something: others may only seem to be busy, in a queue for a thread.
        """
        slow = ((conn, until - conn.patience) for conn, until in self._unfinished.items() if conn.watched)
        oldest = [first for first in (_first(self._silent), next(slow, None)) if first is not None]
        found = min(oldest, key=lambda first: first[1]) if oldest else _first(self._kept)
        if found is not None and found[1] <= time.monotonic() - LEAST_SECONDS:
            self._close(found[0])

    def _give_up(self, conn: Connection, why: Answer) -> None:
        """End a connection that is in the middle of something."""
        if not conn.watched:  # a thread has it
            return
        if conn.begun and not conn.unsent:
            self._refuse(conn, why)
        else:  # a handshake, or an answer
            self._close(conn)

    def _leave(self, conn: Connection) -> None:
        """Close, when the peer has: otherwise it might not see the answer."""
        self._forget(conn)
        if not conn.half_close():
            self._close(conn)
            return
        self._leaving[conn] = time.monotonic() + LINGER_SECONDS
        self._watch(conn, Wait.READABLE, self._drain)

    def _drain(self, conn: Connection) -> None:
        if not conn.drain():
            self._close(conn)

    def _close(self, conn: Connection) -> None:
        self._forget(conn)
        self._leaving.pop(conn, None)
        self._unwatch(conn)
        self.nr_conns -= 1
        conn.close()

    def _forget(self, conn: Connection) -> None:
        """It is in none of the tables of those who have more to say."""
        self._silent.pop(conn, None)
        self._kept.pop(conn, None)
        self._unfinished.pop(conn, None)
        self._ready.pop(conn, None)
        self._count(conn, 0)

    def _count(self, conn: Connection, held: int) -> None:
        self._held += held - conn.counted
        conn.counted = held

    def _watch(self, conn: Connection, wait: Wait, then: Callable[[Connection], None]) -> None:
        """Call `then` whenever the descriptor is so."""
        conn.then = then
        if conn.watched is None:
            self.poller.register(conn.sock, wait, partial(_ready, conn))
        elif conn.watched != wait:
            self.poller.modify(conn.sock, wait, partial(_ready, conn))
        conn.watched = wait

    def _unwatch(self, conn: Connection) -> None:
        if conn.watched is not None:
            self.poller.unregister(conn.sock)
            conn.watched = None


def _ready(conn: Connection, _sock: Any) -> None:
    conn.then(conn)


def _answer(handler: Handler, request: Request) -> Answer:
    try:
        return handler(request)
    except Exception:
        log.exception("failed", method=request.method, path=request.path)
        return _FAILED


def _answers(
    handler: Callable[[Sequence[Request]], Sequence[Answer | None]], requests: Sequence[Request]
) -> Sequence[Answer | None]:
    try:
        return handler(requests)
    except Exception:
        log.exception("failed", requests=[f"{each.method} {each.path}" for each in requests])
        return [_FAILED] * len(requests)


def _first(conns: Mapping[Connection, float]) -> tuple[Connection, float] | None:
    return next(iter(conns.items()), None)


def _before(now: float, conns: Mapping[Connection, float]) -> list[Connection]:
    """Those whose time is over; the first to end come first."""
    return [conn for conn, _ in takewhile(lambda item: item[1] <= now, conns.items())]
