"""HTTP/1.1 as the control plane's own loops speak it: requests as llhttp reads them, answers as bytes.

Nothing here waits or has a socket: whoever has the connection feeds what came, and writes what is to be said
(`discovery.connection` by greenlets, `serving.gthread` by one poller).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from mesh.errors import Unauthenticated
from mesh.identity import Identity
from svid.tls import HasPeerCertificate, peer_identity

JSON = "application/json"
MAX_HEAD = 64 << 10
"""Of a request, everything but its body: also what goes between the chunks of one, and after them."""
MOST_AHEAD = 16
"""Requests that may be sent before the first of them is answered; after these the connection is closed."""
VERSIONS = ("1.1", "1.0")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer(NamedTuple):
    """`headers` beyond Content-Length, which is `body`'s unless they name it. `sent` is called once, sent or not."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    sent: Callable[[], None] | None = None


class Peer:
    """Who is at the other end of a connection that has shaken hands. Its certificate is read once."""

    def __init__(self, connection: HasPeerCertificate, address: str = "") -> None:
        self.address = address
        self._connection = connection
        self._certificate: bytes | None = None
        self._identity: Identity | None = None

    def certificate(self) -> bytes:
        """The certificate that TLS has verified (DER); empty when none was shown."""
        if self._certificate is None:
            self._certificate = self._connection.getpeercert(True) or b""
        return self._certificate

    def identity(self) -> Identity:
        """The SPIFFE ID in it. Raises Unauthenticated."""
        if self._identity is None:
            self._identity = peer_identity(self._connection)
            if self._identity is None:
                raise Unauthenticated("the caller showed no certificate", hint="connect with the pod's SVID")
        return self._identity


@dataclass(slots=True)
class Request:
    """`target` is the path with its query; header names are in lower case. `last`: the connection is closed after the
    answer."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    peer: Peer
    last: bool

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """All of that name, joined by commas (RFC 9110 section 5.3); "" when there is none."""
        return ",".join([value for key, value in self.headers if key == name])

    def caller(self) -> Identity:
        """The verified identity of the connection's peer; raises Unauthenticated."""
        return self.peer.identity()


Handler = Callable[[Request], Answer]


def json_answer(status: int, body: object, *headers: tuple[str, str]) -> Answer:
    return Answer(status, orjson.dumps(body), (("Content-Type", JSON), *headers))


def error_answer(status: int, code: str, message: str) -> Answer:
    """An error that is no HeddleError."""
    return json_answer(status, {"error": {"code": code, "message": message}})


class Refused(Exception):
    """What arrived cannot be a request that is answered here."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = error_answer(status, code, message)


def head_of(answer: Answer, *, last: bool) -> bytes:
    """Everything before the body."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.status != HTTPStatus.NO_CONTENT and all(name.lower() != "content-length" for name, _ in answer.headers):
        lines.append(f"Content-Length: {len(answer.body)}")
    if last:
        lines.append("Connection: close")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


class Requests:
    """What the bytes of one connection mean: llhttp calls the `on_` methods. Requests that are complete are in `whole`,
    oldest first. `max_body` is in bytes."""

    def __init__(self, peer: Peer, max_body: int) -> None:
        self.whole: deque[Request] = deque()
        self._peer, self._max_body = peer, max_body
        self._parser = HttpRequestParser(self)
        self._begin()

    @property
    def held(self) -> int:
        """Bytes of a request that is not complete."""
        return max(self._overhead, 0) + self._size

    def feed(self, data: bytes) -> bool:
        """Whether the client waits to be told to go on. Raises Refused; what is in `whole` then came before it, and the
        last of that says that it is the last."""
        self._expects = False
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
            if self._overhead > MAX_HEAD:
                raise Refused(431, "invalid", f"a request's head is at most {MAX_HEAD} bytes long")
        except HttpParserUpgrade:
            self.whole[-1].last = True  # to nothing that is spoken here: answered as if it had not been asked for
        except HttpParserError as error:
            refused = error.__context__
            if not isinstance(refused, Refused):
                refused = Refused(400, "invalid", f"this is not HTTP/1.1: {error}")
            self._end(refused)
        except Refused as refused:
            self._end(refused)
        return self._expects and not self.whole

    def _end(self, refused: Refused) -> None:
        if not self.whole:
            raise refused from None
        self.whole[-1].last = True  # what came before it is answered, it is not

    def _begin(self) -> None:
        self.begun = False
        """Some of a request that is not complete is here."""
        self._target, self._size, self._overhead = b"", 0, 0
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def on_message_begin(self) -> None:
        """For llhttp, as all of its kind."""
        self.begun = True

    def on_url(self, url: bytes) -> None:
        """See `on_message_begin`."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `on_message_begin`."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """See `on_message_begin`."""
        version = self._parser.get_http_version()
        if version not in VERSIONS:
            raise Refused(400, "invalid", "this is not HTTP/1.1")
        for name, value in self._headers:
            if name == "content-length":
                self._check_size(int(value))
            elif name == "expect":  # RFC 9110 section 10.1.1: not of a client of HTTP/1.0
                self._expects = value.lower() == "100-continue" and version != "1.0"

    def on_body(self, body: bytes) -> None:
        """See `on_message_begin`."""
        self._overhead -= len(body)
        self._size += len(body)
        self._check_size(self._size)
        self._body.append(body)

    def on_message_complete(self) -> None:
        """See `on_message_begin`."""
        if len(self.whole) >= MOST_AHEAD:
            raise Refused(400, "invalid", f"at most {MOST_AHEAD} requests are sent ahead")
        parser = self._parser
        last = parser.get_http_version() != "1.1" or not parser.should_keep_alive()
        method, target = parser.get_method().decode("ascii"), self._target.decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.whole.append(Request(method, target, self._headers, body, self._peer, last))
        self._begin()

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise Refused(413, "too-large", f"a body is at most {self._max_body} bytes long")
