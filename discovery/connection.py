"""One connection of the agents' port: HTTP/1.1 as llhttp reads it, every answer in one write (adr/0145).

    as long as the connection is open:
        read until a request is there
        answer it (polls.py may hold it), and write that

Each connection has a greenlet, so this reads as if it were alone. A request that is too large or no HTTP is answered
with why, and the connection is closed. `Waiting` bounds the time that a request may take to arrive.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

import gevent
import orjson
import structlog
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from mesh.errors import Unauthenticated
from mesh.identity import Identity
from serving.json_http import JSON
from svid.tls import peer_identity

MAX_BODY = 16 << 20
"""A first request names a version for each resource: some 100 bytes each, so this is above 100,000 of them."""
MAX_HEAD = 64 << 10
"""Of a request, everything but its body: also what goes between the chunks of one, and after them."""
CHUNK = 64 << 10
VERSIONS = ("1.1", "1.0")
IDLE_SECONDS = 25.0
"""Without a byte of a next request."""
ARRIVAL_SECONDS = 60.0
"""From a request's first byte to its last."""
WRITE_SECONDS = 30.0
"""For an answer, once it is there: a client that does not read it is given up."""

log = structlog.get_logger("discovery")


class Answer(NamedTuple):
    """`headers` beyond Content-Length, which is `body`'s unless they name it. `sent` is called once, sent or not."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    sent: Callable[[], None] | None = None


@dataclass(slots=True)
class Request:
    """`target` is the path with its query; header names are in lower case. `caller` gives the verified identity of
    the connection's peer, or raises Unauthenticated. `last`: the connection is closed after the answer."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    caller: Callable[[], Identity]
    last: bool

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


Handler = Callable[[Request], Answer]


def json_answer(status: int, body: object, *headers: tuple[str, str]) -> Answer:
    return Answer(status, orjson.dumps(body), (("Content-Type", JSON), *headers))


class Refused(Exception):
    """What arrived cannot be a request that is answered here."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = json_answer(status, {"error": {"code": code, "message": message}})


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
        self._identity: Identity | None = None
        self._requests = _Requests(self.caller)

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

    def caller(self) -> Identity:
        """The peer's identity. Its certificate is read once."""
        if self._identity is None:
            self._identity = peer_identity(self._client)
            if self._identity is None:
                raise Unauthenticated("the caller showed no certificate", hint="connect with the pod's SVID")
        return self._identity

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
            try:
                if requests.feed(data):
                    self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            except Refused:
                if not requests.whole:
                    raise
                requests.whole[-1].last = True  # what came before it is answered, it is not
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
            answer = json_answer(500, {"error": {"code": "internal", "message": "discovery failed; its log says why"}})
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


def head_of(answer: Answer, *, last: bool) -> bytes:
    """Everything before the body."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.status != HTTPStatus.NO_CONTENT and all(name.lower() != "content-length" for name, _ in answer.headers):
        lines.append(f"Content-Length: {len(answer.body)}")
    if last:
        lines.append("Connection: close")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


class _Requests:
    """What the bytes mean: llhttp calls the `on_` methods. Requests that are complete are in `whole`, oldest first."""

    def __init__(self, caller: Callable[[], Identity]) -> None:
        self.whole: deque[Request] = deque()
        self._caller = caller
        self._parser = HttpRequestParser(self)
        self._begin()

    def feed(self, data: bytes) -> bool:
        """Whether the client waits to be told to go on. Raises Refused."""
        self._expects = False
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.whole[-1].last = True  # to nothing that is spoken here: answered as if it had not been asked for
        except HttpParserError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise Refused(400, "invalid", f"this is not HTTP/1.1: {error}") from None
        if self._overhead > MAX_HEAD:
            raise Refused(431, "invalid", f"a request's head is at most {MAX_HEAD} bytes long")
        return self._expects and not self.whole

    def _begin(self) -> None:
        self._target, self._size, self._overhead = b"", 0, 0
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self._parser.get_http_version() not in VERSIONS:
            raise Refused(400, "invalid", "this is not HTTP/1.1")
        for name, value in self._headers:
            if name == "content-length":
                self._check_size(int(value))
            elif name == "expect":
                self._expects = value.lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        self._size += len(body)
        self._check_size(self._size)
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        last = parser.get_http_version() != "1.1" or not parser.should_keep_alive()
        method, target = parser.get_method().decode("ascii"), self._target.decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.whole.append(Request(method, target, self._headers, body, self._caller, last))
        self._begin()

    def _check_size(self, size: int) -> None:
        if size > MAX_BODY:
            raise Refused(413, "too-large", f"a body is at most {MAX_BODY} bytes long")
