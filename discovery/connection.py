"""One connection of the agents' port: HTTP/1.1 (`serving.http1`), every answer in one write (adr/0145).

    as long as the connection is open:
        read until a request is there
        answer it (polls.py may hold it), and write that

Each connection has a greenlet, so this reads as if it were alone. A request that is too large or no HTTP is answered
with why, and the connection is closed. `Waiting` bounds the time that a request may take to arrive.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import gevent
import structlog

from serving.http1 import CONTINUE, Answer, Handler, Peer, Refused, Request, Requests, error_answer, head_of

MAX_BODY = 16 << 20
"""A first request names a version for each resource: some 100 bytes each, so this is above 100,000 of them."""
CHUNK = 64 << 10
IDLE_SECONDS = 25.0
"""Without a byte of a next request."""
ARRIVAL_SECONDS = 60.0
"""From a request's first byte to its last."""
WRITE_SECONDS = 30.0
"""For an answer, once it is there: a client that does not read it is given up."""

log = structlog.get_logger("discovery")


@dataclass(slots=True)
class Waiting:
    """The greenlets that wait for (the rest of) a request, each with the time at which it is ended."""

    clock: Callable[[], float]
    until: dict[gevent.Greenlet, float] = field(default_factory=dict)

    def sweep(self) -> None:
        """End those that have waited for too long."""
        now = self.clock()
        self._end([greenlet for greenlet, until in self.until.items() if until <= now])

    def end(self) -> None:
        """End all."""
        self._end(list(self.until))

    def _end(self, greenlets: Sequence[gevent.Greenlet]) -> None:
        gevent.killall(greenlets, block=False)  # GreenletExit where it waits; the server closes its socket


class Connection:
    """Between `client`, which has shaken hands, and `handler`. `closing` tells that the process is about to end."""

    def __init__(self, client: ssl.SSLSocket, handler: Handler, waiting: Waiting, closing: Callable[[], bool]) -> None:
        self._client, self._handler, self._waiting, self._closing = client, handler, waiting, closing
        self._requests = Requests(Peer(client), MAX_BODY)

    def serve(self) -> None:
        """Until either end closes. OSError when the client goes away or falls silent."""
        try:
            while (request := self._next()) is not None:
                self._answer(request)
                if request.last or self._closing():
                    return
        except Refused as refused:
            log.info("refused", error=str(refused), status=refused.answer.status)
            self._write("", refused.answer, last=True)
            self._drain()

    def _next(self) -> Request | None:
        """The next request; None when the client has none any more."""
        requests, idle = self._requests, True
        until = self._waiting.clock() + IDLE_SECONDS
        while not requests.whole:
            data = self._receive(until)
            if not data:
                return None
            if idle:
                idle, until = False, self._waiting.clock() + ARRIVAL_SECONDS
            if requests.feed(data):
                self._client.sendall(CONTINUE)
        return requests.whole.popleft()

    def _receive(self, until: float) -> bytes:
        current = gevent.getcurrent()
        self._client.settimeout(None)
        self._waiting.until[current] = until
        try:
            return self._client.recv(CHUNK)
        finally:
            del self._waiting.until[current]

    def _answer(self, request: Request) -> None:
        try:
            answer = self._handler(request)
        except Exception:
            log.exception("failed", method=request.method, path=request.path)
            answer = error_answer(500, "internal", "discovery failed; its log says why")
        try:
            self._write(request.method, answer, last=request.last or self._closing())
        finally:
            if answer.sent is not None:
                answer.sent()

    def _write(self, method: str, answer: Answer, *, last: bool) -> None:
        """In one write, unless it is large: putting head and body together would hold both twice."""
        head, body = head_of(answer, last=last), b"" if method == "HEAD" else answer.body
        self._client.settimeout(WRITE_SECONDS)
        if len(body) <= CHUNK:
            data = memoryview(head + body)
        else:
            self._client.sendall(head)
            data = memoryview(body)
        sent = self._client.send(data)
        if sent < len(data):
            self._client.sendall(data[sent:])

    def _drain(self) -> None:
        """Take what is still on its way: closed over it, the connection would be reset and the answer lost."""
        until = self._waiting.clock() + IDLE_SECONDS
        while self._receive(until):
            pass
