"""A small HTTP/1.1 server: asyncio carries the bytes, h11 decides what they mean.

One protocol object a connection and no task while a request waits, because Envoy holds one connection open for each of
its subscriptions, and there may be a thousand.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import h11
import orjson

from mesh.errors import HeddleError

log = logging.getLogger("agent.http")

MAX_BODY = 4 << 20
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """`path` without the query; header names in lower case; `peer` is an IP address, or empty on a Unix socket."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    peer: str

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True, slots=True)
class Response:
    """`body` as an iterator is sent in chunks as it comes."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = field(default=())


Handler = Callable[[Request], Response | Awaitable[Response]]


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value), JSON)


def error_response(error: HeddleError) -> Response:
    """The body that every service of the mesh answers errors with."""
    return json_response({"error": error.as_json()}, error.status)


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler, open_connections: set[_Connection]) -> None:
        self._handler = handler
        self._open = open_connections
        self._http = h11.Connection(h11.SERVER)
        self._transport: asyncio.Transport
        self._request: h11.Request | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._waiting: asyncio.Future[Response] | None = None
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        if self._waiting is not None:
            self._waiting.cancel()

    def close(self) -> None:
        self._transport.close()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        return False  # the peer sends no more; whatever it asked it no longer waits for

    def _advance(self) -> None:
        try:
            while self._waiting is None:
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self._request, self._body, self._size = event, [], 0
                elif isinstance(event, h11.Data):
                    self._size += len(event.data)
                    if self._size > MAX_BODY:
                        self._refuse(413, "the body is too large")
                        return
                    self._body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._handle()
                elif isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))

    def _handle(self) -> None:
        assert self._request is not None
        path, _, query = self._request.target.decode("latin-1").partition("?")
        address = self._transport.get_extra_info("peername")
        request = Request(
            self._request.method.decode("ascii"),
            path,
            query,
            tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in self._request.headers),
            b"".join(self._body),
            address[0] if isinstance(address, tuple) else "",
        )
        self._body = []
        try:
            answer = self._handler(request)
        except Exception as error:
            self._send(_failure(f"{request.method} {request.path}", error))
            return
        if isinstance(answer, Response) and isinstance(answer.body, bytes):
            self._send(answer)
            return
        waiting = answer if isinstance(answer, asyncio.Future) else asyncio.ensure_future(self._finish(answer))
        self._waiting = waiting
        what = f"{request.method} {request.path}"  # not the request: a held poll would keep its 77 KB in memory
        waiting.add_done_callback(lambda done: self._done(what, done))

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
        if error is not None and self._http.our_state is not h11.SEND_RESPONSE:
            self._transport.close()  # half of an answer is out already
        elif error is not None:
            self._send(_failure(what, error))
        else:
            response = done.result()
            if isinstance(response.body, bytes):
                self._send(response)
            else:
                self._next()
        if not self._transport.is_closing():
            self._advance()

    def _head(self, response: Response, *extra: tuple[str, str]) -> h11.Response:
        headers = [("content-type", response.content_type), *response.headers, *extra]
        return h11.Response(status_code=response.status, headers=headers, reason=_REASONS.get(response.status, b""))

    def _send(self, response: Response) -> None:
        assert isinstance(response.body, bytes)
        head = self._http.send(self._head(response, ("content-length", str(len(response.body)))))
        parts = [head, self._http.send(h11.Data(data=response.body)), self._http.send(h11.EndOfMessage())]
        self._transport.write(b"".join(part for part in parts if part))
        self._next()

    async def _stream(self, response: Response, body: AsyncIterator[bytes]) -> None:
        self._write(self._http.send(self._head(response, ("transfer-encoding", "chunked"))))
        async for chunk in body:
            self._write(self._http.send(h11.Data(data=chunk)))
            if self._writable is not None:  # a slow reader must not make us hold all that there is
                await self._writable
        self._write(self._http.send(h11.EndOfMessage()))

    def _write(self, data: bytes | None) -> None:
        if data:
            self._transport.write(data)

    def _next(self) -> None:
        if self._http.our_state is h11.MUST_CLOSE:
            self._transport.close()
        elif self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._request = None

    def _refuse(self, status: int, message: str) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = Response(status, message.encode(), headers=(("connection", "close"),))
            self._send(body)
        self._transport.close()


_REASONS = {200: b"OK", 304: b"Not Modified", 400: b"Bad Request", 404: b"Not Found", 503: b"Service Unavailable"}


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
