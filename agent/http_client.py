"""A small HTTP/1.1 client over asyncio and httptools: to discovery, to Envoy's admin port, to the app's probes.

The connection is the protocol object itself, so that an answer costs one callback and no task (docs/adr/0066).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from agent.read_buffer import Receiver
from mesh.errors import Unavailable
from svid.tls import refuses_certificate

MAX_HEAD = 64 << 10
"""Bytes without body between a peer's status line and body, two chunks, or the last chunk and the end."""
READ_AHEAD = 256 << 10  # bytes of a stream that are held for who reads it slowly


class Untrusted(Unavailable):
    """The server refused the certificate that it was shown: it has ended, or its root is no longer trusted."""


class Answer(NamedTuple):
    """Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


Ended = Callable[[Answer | Unavailable], None]


class Connection(Receiver):
    """One connection, used for one request after another."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._lost = False
        self._ended: Ended | None = None  # set while an answer is awaited whole
        self._waiter: asyncio.Future[None] | None = None  # and this while it is awaited piece by piece
        self._failure: Unavailable | None = None
        self._asked = self._whole = self._last = False
        self._method = ""
        self._limit = 0
        self._forget()

    def _forget(self) -> None:
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._chunks: deque[bytes] = deque()
        self._size = self._overhead = 0

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The TLS session, to check who the peer is."""
        found = self._transport.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        return not self._asked and not self._lost and not self._transport.is_closing()

    def close(self) -> None:
        """Close without waiting for the peer."""
        self._transport.close()

    # ---- asking

    def ask(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes, limit: int, ended: Ended
    ) -> None:
        """Send. `ended` gets the whole answer, or Unavailable: the peer broke off, broke HTTP or sent over `limit`."""
        self._ended, self._limit = ended, limit
        self._send(method, target, headers, body)

    async def request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        limit: int = 1 << 28,
    ) -> Answer:
        """Send, and read the whole answer. Unavailable as for `ask`."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.ask(method, target, headers, body, limit, partial(_settle, answer))
        try:
            return await answer
        except BaseException:
            self.close()
            raise

    async def peek(self, method: str, target: str, headers: Sequence[tuple[str, str]], limit: int) -> tuple[int, bytes]:
        """The status and the first `limit` bytes of the body; the connection is closed afterwards. Unavailable."""
        self._send(method, target, headers, b"")
        start = b""
        try:
            while len(start) < limit and (chunk := await self._chunk()) is not None:
                start += chunk
        finally:
            self.close()
        return self._status, start[:limit]

    async def stream(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] = ()
    ) -> AsyncGenerator[bytes, None]:
        """The body as it comes; Unavailable unless the status is 200. The connection is closed afterwards."""
        self._send(method, target, headers, b"")
        try:
            while (chunk := await self._chunk()) is not None:
                if self._status != 200:
                    break
                yield chunk
            if self._status != 200:
                raise Unavailable(f"{self._host}{target} answered {self._status}")
        finally:
            self.close()

    def _send(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self._asked, self._method = True, method
        lines = [f"{method} {target} HTTP/1.1"]
        if all(name.lower() != "host" for name, _ in headers):
            lines.append(f"host: {self._host}")
        if body or method == "POST":
            lines.append(f"content-length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers]
        if any("\r" in line or "\n" in line or "\0" in line for line in lines):
            self._fail("was not asked: a line break is in the target or in a header")
        elif self._lost:
            self._fail("broke off: closed before it was asked")
        else:
            self._transport.write("\r\n".join((*lines, "\r\n")).encode("latin-1", "replace") + body)

    async def _chunk(self) -> bytes | None:
        """What came next; None at the end."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._whole:
                return None
            self._transport.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        return chunk

    # ---- what comes: asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def received(self, data: memoryview) -> None:
        if not self._asked:
            self.close()  # nothing was asked: whatever this is, the next answer could not be told from it
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail("changes to another protocol")
        except HttpParserError as error:
            self._fail(f"breaks HTTP: {error.__context__ or error}")
        if self._overhead > MAX_HEAD:
            self._fail(f"sends more than {MAX_HEAD} bytes of headers")
        elif self._ended is not None and self._size > self._limit:
            self._fail(f"answered with more than {self._limit} bytes")
        elif self._whole and self._ended is not None:
            self._end()
        elif self._waiter is not None and (self._chunks or self._whole):
            self._wake()
        elif self._ended is None and self._size > READ_AHEAD:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if not self._asked:
            return
        if exc is None and self._status and not self._has_length():
            self.on_message_complete()  # the end of the connection is the end of the body (RFC 9112, 6.3)
            if self._ended is not None:
                self._end()
            else:
                self._wake()
        elif not self._whole:
            kind = Untrusted if refuses_certificate(exc) else Unavailable
            self._fail(f"broke off: {exc or 'closed before it answered'}", kind)

    # ---- what it means: httptools' callbacks

    def on_message_begin(self) -> None:
        if self._whole:
            raise HttpParserError("an answer to nothing that was asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # else it is a trailer
            self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # else another answer follows
            self._status = status
            if self._method == "HEAD":
                self._whole = True
                self.close()
        else:
            self._headers.clear()

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        self._size += len(body)
        if self._ended is None or self._size <= self._limit:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._whole = True
            self._last = not self._parser.should_keep_alive()

    def _has_length(self) -> bool:
        return any(name in ("content-length", "transfer-encoding") for name, _ in self._headers)

    # ---- how it ends

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        assert ended is not None
        answer = Answer(self._status, tuple(self._headers), b"".join(self._chunks))
        if self._last:
            self.close()
        self._forget()
        self._asked = self._whole = False
        ended(answer)

    def _fail(self, why: str, kind: type[Unavailable] = Unavailable) -> None:
        if self._failure is not None:
            return
        self._failure = kind(f"{self._host} {why}")
        self.close()
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended(self._failure)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _settle(future: asyncio.Future[Answer], answer: Answer | Unavailable) -> None:
    if future.done():
        return
    if isinstance(answer, Unavailable):
        future.set_exception(answer)
    else:
        future.set_result(answer)


async def connect(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    timeout: float = 5.0,
    source: tuple[str, int] | None = None,
) -> Connection:
    """A connection to `host`:`port`; Unavailable when there is none within `timeout` seconds."""
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            _, connection = await loop.create_connection(
                partial(Connection, name), host, port, ssl=tls, server_hostname="" if tls else None, local_addr=source
            )
    except TimeoutError:
        raise Unavailable(f"no connection to {host}:{port} within {timeout:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            f"{host}:{port} shows a certificate that does not verify: {error.verify_message}",
            hint="is this machine's clock right, and is the trust bundle current?",
        ) from None
    except OSError as error:
        raise Unavailable(f"no connection to {host}:{port}: {error or type(error).__name__}") from None
    return connection


async def connect_unix(path: str) -> Connection:
    """A connection to the Unix socket `path`; Unavailable when nobody listens."""
    try:
        _, connection = await asyncio.get_running_loop().create_unix_connection(partial(Connection, "agent"), path)
    except OSError as error:
        raise Unavailable(f"no connection to {path}: {error}", hint="is the agent running?") from None
    return connection


async def fetch(
    host: str,
    port: int,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
    *,
    timeout: float = 5.0,
    limit: int = 1 << 28,
) -> Answer:
    """One plain request on a connection of its own, all within `timeout` seconds; Unavailable otherwise."""
    try:
        async with asyncio.timeout(timeout):
            connection = await connect(host, port, timeout=timeout)
            try:
                return await connection.request(method, target, headers, limit=limit)
            finally:
                connection.close()
    except TimeoutError:
        raise Unavailable(f"{host}:{port} did not answer {target} within {timeout:g} s") from None
