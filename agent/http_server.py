"""A small HTTP/1.1 server: asyncio carries the bytes, httptools decides what they mean.

One protocol object a connection and no task while a request waits, because Envoy holds one connection open for each of
its subscriptions, and there may be a thousand.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from agent.read_buffer import Receiver
from mesh.errors import HeddleError

log = logging.getLogger("agent.http")

MAX_BODY = 4 << 20
MAX_HEAD = 64 << 10
"""Bytes without body between a request's first line and its body, two chunks, or the last chunk and the end."""
MAX_AHEAD = 16  # requests on one connection that come before the first of them is answered
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Request(NamedTuple):
    """`path` without the query; header names in lower case; `peer` is an IP address, or empty on a Unix socket."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    peer: str

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Response(NamedTuple):
    """`body` as an iterator is sent in chunks as it comes."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


class Later:
    """An answer that is not there yet, for a handler to return; `give` it once. Costs no task and no turn of the loop.

    `on_left()` is called instead when the peer leaves before.
    """

    __slots__ = ("_send", "on_left")

    def __init__(self, on_left: Callable[[], None]) -> None:
        self._send: Callable[[Response], None] | None = None
        self.on_left = on_left

    def bind(self, send: Callable[[Response], None]) -> None:
        """Where the answer goes."""
        self._send = send

    def give(self, response: Response) -> None:
        """Send the answer."""
        assert self._send is not None
        self._send(response)


Handler = Callable[[Request], Response | Later | Awaitable[Response]]


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value), JSON)


def error_response(error: HeddleError) -> Response:
    """The body that every service of the mesh answers errors with."""
    return json_response({"error": error.as_json()}, error.status)


class _Connection(Receiver):
    def __init__(self, handler: Handler, open_connections: set[_Connection]) -> None:
        self._handler = handler
        self._open = open_connections
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._requests: deque[Request] = deque()  # more than one when the peer does not wait for answers
        self._waiting: Later | asyncio.Future[Response] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._last = False  # the peer closes, or wants us to, after the newest of the requests
        self._chunks_known = True
        self._head_only = False
        self._half_sent = False
        self._forget()

    def _forget(self) -> None:
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._size = self._overhead = 0

    def close(self) -> None:
        self._transport.close()

    # ---- what comes: asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        waiting, self._waiting = self._waiting, None
        if isinstance(waiting, Later):
            waiting.on_left()
        elif waiting is not None:
            waiting.cancel()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def received(self, data: memoryview) -> None:
        if self._transport.is_closing():
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._last = True  # to nothing that is spoken here: the request is answered as if it had not asked for it
        except HttpParserError as error:
            if self._size > MAX_BODY:
                self._refuse(413, "the body is too large")
            else:
                self._refuse(400, f"this is not HTTP/1.1: {error.__context__ or error}")
            return
        if self._overhead > MAX_HEAD:
            self._refuse(431, "the headers are too large")
        elif self._requests:
            self._serve()

    def eof_received(self) -> bool:
        return False  # the peer sends no more; whatever it asked it no longer waits for

    # ---- what it means: httptools' callbacks

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        self._size += len(body)
        if self._size > MAX_BODY:
            raise HttpParserError("the body is too large")
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        self._chunks_known = parser.get_http_version() != "1.0"
        self._last = not (self._chunks_known and parser.should_keep_alive())
        headers = tuple(self._headers)
        if self._chunks_known and all(name != "host" for name, _ in headers):
            raise HttpParserError("there is no Host")  # RFC 9112, 3.2
        if len(self._requests) == MAX_AHEAD:
            raise HttpParserError("too many requests before an answer")
        path, _, query = self._url.decode("latin-1").partition("?")
        address = self._transport.get_extra_info("peername")
        peer = address[0] if isinstance(address, tuple) else ""
        method = parser.get_method().decode("ascii")
        self._requests.append(Request(method, path, query, headers, b"".join(self._body), peer))
        self._forget()

    # ---- answering

    def _serve(self) -> None:
        while self._requests and self._waiting is None and not self._transport.is_closing():
            self._handle(self._requests.popleft())

    def _handle(self, request: Request) -> None:
        what = f"{request.method} {request.path}"  # not the request: a held poll would keep its 77 KB in memory
        self._head_only = request.method == "HEAD"
        try:
            answer = self._handler(request)
        except Exception as error:
            self._send(_failure(what, error))
            return
        if isinstance(answer, Later):
            self._waiting = answer
            answer.bind(self._give)
        elif isinstance(answer, Response) and isinstance(answer.body, bytes):
            self._send(answer)
        else:
            self._waiting = waiting = asyncio.ensure_future(self._finish(answer))
            waiting.add_done_callback(partial(self._done, what))

    def _give(self, response: Response) -> None:
        self._waiting = None
        if not self._transport.is_closing():
            self._send(response)
            if self._requests:
                asyncio.get_running_loop().call_soon(self._serve)

    async def _finish(self, answer: Response | Awaitable[Response]) -> Response:
        response = answer if isinstance(answer, Response) else await answer
        if not isinstance(response.body, bytes):
            await self._stream(response, response.body)
        return response

    def _done(self, what: str, done: asyncio.Future[Response]) -> None:
        self._waiting = None
        if self._transport.is_closing():
            if not done.cancelled():
                done.exception()  # nobody is there to hear of it
            return
        if done.cancelled():
            self._transport.close()
            return
        error = done.exception()
        if error is not None and self._half_sent:
            self._transport.close()
        elif error is not None:
            self._send(_failure(what, error))
        elif isinstance(done.result().body, bytes):
            self._send(done.result())
        elif self._last and not self._requests:
            self._transport.close()
        self._serve()

    def _head(self, response: Response, *framing: tuple[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}"]
        lines.append(f"content-type: {response.content_type}")
        lines += [f"{name}: {value}" for name, value in (*framing, *response.headers)]
        if self._last and not self._requests:
            lines.append("connection: close")
        return "\r\n".join((*lines, "\r\n")).encode("latin-1", "replace")

    def _send(self, response: Response) -> None:
        assert isinstance(response.body, bytes)
        head = self._head(response, ("content-length", str(len(response.body))))
        self._transport.write(head if self._head_only else head + response.body)
        if self._last and not self._requests:
            self._transport.close()

    async def _stream(self, response: Response, body: AsyncIterator[bytes]) -> None:
        self._half_sent = True
        framing = [("transfer-encoding", "chunked")] if self._chunks_known else []
        self._transport.write(self._head(response, *framing))
        async for chunk in body:
            if chunk and not self._head_only:
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunks_known else chunk)
            if self._writable is not None:  # a slow reader must not make us hold all that there is
                await self._writable
        if self._chunks_known and not self._head_only:
            self._transport.write(b"0\r\n\r\n")
        self._half_sent = False

    def _refuse(self, status: int, message: str) -> None:
        if self._waiting is None and not self._requests:
            self._last, self._head_only = True, False
            self._send(Response(status, message.encode()))
        self._transport.close()


_REASONS = {200: "OK", 304: "Not Modified", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


def _failure(what: str, error: BaseException) -> Response:
    if isinstance(error, HeddleError):
        return error_response(error)
    log.error("%s failed: %r", what, error, exc_info=error)
    return error_response(HeddleError("the agent failed to answer; its log says why"))


class HttpServer:
    """A listening socket with its connections. `async with` closes it."""

    def __init__(self, server: asyncio.Server, open_connections: set[_Connection]) -> None:
        self._server = server
        self._open = open_connections

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        self._server.close()
        for connection in tuple(self._open):
            connection.close()


async def serve_tcp(host: str | Sequence[str], port: int, handler: Handler) -> HttpServer:
    """Listen on `port` of each `host`. Raises OSError when the port is taken."""
    connections: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(handler, connections), host, port, reuse_address=True)
    return HttpServer(server, connections)


async def serve_unix(path: str, handler: Handler) -> HttpServer:
    """Listen on the Unix socket `path`, for this user only; one that a dead process left is replaced."""
    connections: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    before = os.umask(0o177)
    try:
        if os.path.exists(path):
            os.unlink(path)
        server = await loop.create_unix_server(lambda: _Connection(handler, connections), path, backlog=4096)
    finally:
        os.umask(before)
    return HttpServer(server, connections)
