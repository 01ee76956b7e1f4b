"""The agent's HTTP, both ends, against raw sockets: what is refused, what is bounded, in which order answers come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from agent.http_client import MAX_HEAD, connect
from agent.http_server import MAX_AHEAD, MAX_BODY, Handler, Later, Request, Response, serve_tcp
from mesh.errors import Unavailable

T = TypeVar("T")
HOST = b"host: x\r\n"


def ask(sent: bytes, handler: Handler) -> bytes:
    """Everything that the server answers to `sent` until it closes, or until the client has closed."""

    async def run() -> bytes:
        server = await serve_tcp("127.0.0.1", 0, handler)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            server.close()

    return asyncio.run(run())


def echo(request: Request) -> Response:
    return Response(200, f"{request.method} {request.path} {request.query} ".encode() + request.body)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "host: x", *headers, "\r\n")).encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\n" + HOST + b" folded: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET /" + b"a" * (MAX_HEAD + 1), 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"a" * (MAX_HEAD + 1), 431),
        (b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * (MAX_HEAD + 1), 431),
        (b"POST / HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n\r\n" % (MAX_BODY + 1) + b"a" * (MAX_BODY + 1), 413),
    ],
)
def test_what_is_wrong_or_too_large_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    assert ask(sent, echo).startswith(b"HTTP/1.1 %d " % status)


def test_requests_are_answered_in_order_though_the_first_answer_is_late() -> None:
    def handler(request: Request) -> Response | Later:
        if request.path != "/first":
            return echo(request)
        later = Later(lambda: None)
        asyncio.get_running_loop().call_later(0.05, lambda: later.give(Response(200, b"late")))
        return later

    answered = ask(get("/first") + get("/second?q", "connection: close"), handler)
    assert answered.count(b"HTTP/1.1 200 OK") == 2
    assert answered.index(b"late") < answered.index(b"GET /second q ")


def test_who_asks_too_much_without_waiting_is_cut_off() -> None:
    assert ask(get("/") * (MAX_AHEAD + 1), echo) == b""


def test_a_body_may_come_byte_by_byte_and_in_chunks() -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello")
    head = b"POST /x HTTP/1.1\r\n" + HOST + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    sent = head + chunks + b"0\r\n\r\n"

    async def run() -> bytes:
        server = await serve_tcp("127.0.0.1", 0, echo)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in sent:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        found = await reader.read()
        writer.close()
        server.close()
        return found

    assert asyncio.run(run()).endswith(b"POST /x  hello")


def test_old_clients_get_no_chunks_and_head_gets_no_body() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    def handler(_: Request) -> Response:
        return Response(200, pieces())

    assert ask(b"GET / HTTP/1.0\r\n\r\n", handler).endswith(b"\r\n\r\nonetwo")
    assert ask(get("/", "connection: close"), handler).endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert ask(b"HEAD / HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n", echo).endswith(b"\r\n\r\n")


def test_an_offer_to_change_the_protocol_is_not_taken() -> None:
    answered = ask(get("/", "connection: upgrade", "upgrade: h2c"), echo)
    assert answered.startswith(b"HTTP/1.1 200 OK")


def test_a_handler_that_fails_is_an_error_and_a_peer_that_leaves_is_told_of() -> None:
    def failing(_: Request) -> Response:
        raise ValueError("secret")

    answered = ask(get("/", "connection: close"), failing)
    assert b" 500 " in answered.splitlines()[0]
    assert b"secret" not in answered

    async def run() -> None:
        left = asyncio.Event()
        server = await serve_tcp("127.0.0.1", 0, lambda _: Later(left.set))
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/"))
        await asyncio.sleep(0.05)
        writer.close()
        async with asyncio.timeout(10):
            await left.wait()
        server.close()

    asyncio.run(run())


def answering(*answers: bytes, client: Callable[[int], Awaitable[T]]) -> T:
    """What `client(port)` returns with a server that answers each request with the next of `answers`, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    async def run() -> T:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            async with asyncio.timeout(10):
                return await client(server.sockets[0].getsockname()[1])
        finally:
            server.close()

    return asyncio.run(run())


async def fetch(port: int) -> bytes:
    connection = await connect("127.0.0.1", port)
    return (await connection.request("GET", "/", limit=1000)).body


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "broke off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", "broke off"),
        (b"SSH-2.0-x\r\n", "breaks HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "another protocol|broke off",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"a" * 2000, "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * (2 * MAX_HEAD), "bytes of headers"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", "nothing that was asked"),
    ],
)
def test_a_server_that_breaks_off_or_breaks_http_is_unavailable(answer: bytes, why: str) -> None:
    with pytest.raises(Unavailable, match=why):
        answering(answer, client=fetch)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n\r\nab",  # the body ends with the connection
        b"HTTP/1.0 200 OK\r\n\r\nab",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\nab\r\n0\r\nx: y\r\n\r\n",
    ],
)
def test_every_way_to_end_a_body_is_understood(answer: bytes) -> None:
    assert answering(answer, client=fetch) == b"ab"


def test_a_connection_is_used_again_unless_the_server_says_no() -> None:
    async def twice(port: int) -> tuple[bytes, bool, bytes, bool]:
        connection = await connect("127.0.0.1", port)
        first = await connection.request("GET", "/1")
        again = connection.reusable
        second = await connection.request("GET", "/2")
        return first.body, again, second.body, connection.reusable

    one = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1"
    two = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n2"
    assert answering(one, two, client=twice) == (b"1", True, b"2", False)


def test_a_stream_larger_than_what_is_read_ahead_arrives_whole() -> None:
    async def streamed(port: int) -> int:
        connection = await connect("127.0.0.1", port)
        size = 0
        async for chunk in connection.stream("GET", "/"):
            size += len(chunk)
            await asyncio.sleep(0)
        return size

    size = 3_000_000
    assert answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"a" * size, client=streamed) == size


def test_nothing_that_breaks_lines_is_sent() -> None:
    async def split(port: int) -> None:
        connection = await connect("127.0.0.1", port)
        await connection.request("GET", "/ HTTP/1.1\r\nx: y")

    with pytest.raises(Unavailable, match="line break"):
        answering(b"", client=split)
