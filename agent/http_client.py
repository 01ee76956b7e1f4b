"""A small HTTP/1.1 client over asyncio and h11: to discovery, to Envoy's admin port, to the app's probes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import h11

from mesh.errors import Unavailable

READ_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Connection:
    """One connection, used for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host
        self._http = h11.Connection(h11.CLIENT)

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The TLS session, to check who the peer is."""
        found = self._writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._http.our_state is h11.IDLE and not self._reader.at_eof() and not self._writer.is_closing()

    async def request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        limit: int = 1 << 28,
    ) -> Answer:
        """Send, and read the whole answer. Unavailable when the peer breaks off, breaks HTTP or sends over `limit`."""
        try:
            response = await self._send(method, target, headers, body)
            chunks, size = [], 0
            async for chunk in self._body():
                size += len(chunk)
                if size > limit:
                    raise Unavailable(f"{self._host} answered with more than {limit} bytes")
                chunks.append(chunk)
        except (OSError, h11.ProtocolError) as error:
            self.close()
            raise Unavailable(f"{self._host} broke off: {error or type(error).__name__}") from None
        except BaseException:
            self.close()
            raise
        self._recycle()
        return Answer(response.status_code, _texts(response), b"".join(chunks))

    async def peek(self, method: str, target: str, headers: Sequence[tuple[str, str]], limit: int) -> tuple[int, bytes]:
        """The status and the first `limit` bytes of the body; the connection is closed afterwards. Unavailable."""
        try:
            response = await self._send(method, target, headers, b"")
            start = b""
            async for chunk in self._body():
                start += chunk
                if len(start) >= limit:
                    break
        except (OSError, h11.ProtocolError) as error:
            raise Unavailable(f"{self._host} broke off: {error or type(error).__name__}") from None
        finally:
            self.close()
        return response.status_code, start[:limit]

    async def stream(self, method: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> AsyncIterator[bytes]:
        """The body as it comes; Unavailable unless the status is 200. The connection is closed afterwards."""
        try:
            response = await self._send(method, target, headers, b"")
            if response.status_code != 200:
                raise Unavailable(f"{self._host}{target} answered {response.status_code}")
            async for chunk in self._body():
                yield chunk
        except (OSError, h11.ProtocolError) as error:
            raise Unavailable(f"{self._host} broke off: {error or type(error).__name__}") from None
        finally:
            self.close()

    async def _send(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> h11.Response:
        names = {name.lower() for name, _ in headers}
        own = [("host", self._host)] if "host" not in names else []
        if body or method == "POST":
            own.append(("content-length", str(len(body))))
        request = h11.Request(method=method, target=target, headers=[*own, *headers])
        parts = [self._http.send(request), self._http.send(h11.Data(data=body)), self._http.send(h11.EndOfMessage())]
        self._writer.write(b"".join(part for part in parts if part))
        await self._writer.drain()
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("closed before it answered")

    async def _body(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type) or event is h11.PAUSED
                return event
            self._http.receive_data(await self._reader.read(READ_SIZE))

    def _recycle(self) -> None:
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.close()

    def close(self) -> None:
        """Close without waiting for the peer."""
        self._writer.close()


async def connect(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    timeout: float = 5.0,
    source: tuple[str, int] | None = None,
) -> Connection:
    """A connection to `host`:`port`; Unavailable when there is none within `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=tls, server_hostname="" if tls else None, local_addr=source
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
    return Connection(reader, writer, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


async def connect_unix(path: str) -> Connection:
    """A connection to the Unix socket `path`; Unavailable when nobody listens."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise Unavailable(f"no connection to {path}: {error}", hint="is the agent running?") from None
    return Connection(reader, writer, "agent")


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


def _texts(response: h11.Response) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in response.headers)
