"""A connection's own rules, over a socket pair in this process; TLS and the whole service are in test_service.py."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import orjson
import pytest
from gevent import socket
from gevent.event import Event

from discovery import connection
from discovery.connection import Connection, Waiting
from serving.http1 import Answer, Request, json_answer

POST = b"POST /v1/config HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
GET = b"GET /a?b=c HTTP/1.1\r\nHost: d\r\n"


class Peer:
    """The other end, and what was asked there. `answers` to give (or raise), `b"ok"` when there are none."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answers: list[Answer | Exception] = []
        self.may_answer = Event()
        self.may_answer.set()
        self.now, self.closing = 0.0, False
        self.waiting = Waiting(lambda: self.now)
        self.socket, other = socket.socketpair()
        self.socket.settimeout(60)
        self._reader = self.socket.makefile("rb")
        served = Connection(other, self._answer, self.waiting, lambda: self.closing)  # type: ignore[arg-type]
        self.greenlet = gevent.spawn(served.serve)
        self.greenlet.link(lambda _: other.close())

    def _answer(self, request: Request) -> Answer:
        self.asked.append(request)
        self.may_answer.wait()
        answer = self.answers.pop(0) if self.answers else Answer(200, b"ok")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def read(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        status = int(self._reader.readline().split()[1])
        headers = {}
        while line := self._reader.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, self._reader.read(int(headers.get("content-length", 0)) if body else 0)

    def ended(self) -> bool:
        """Whether the connection is closed, and nothing came before that."""
        return self._reader.read() == b""

    def settle(self) -> None:
        """Let the connection do what it can."""
        for _ in range(5):
            gevent.sleep(0)
        gevent.sleep(0.01)


@pytest.fixture
def peer() -> Iterator[Peer]:
    found = Peer()
    yield found
    found.greenlet.kill()
    found.socket.close()


def test_a_request_byte_by_byte_is_the_request(peer: Peer) -> None:
    for byte in POST + b"Content-Length: 3\r\n\r\nabc":
        peer.socket.sendall(bytes([byte]))
    assert peer.read() == (200, {"content-length": "2"}, b"ok")
    (request,) = peer.asked
    assert (request.method, request.target, request.body) == ("POST", "/v1/config", b"abc")
    assert request.header("content-type") == "application/json"


def test_requests_that_come_together_are_answered_in_their_order(peer: Peer) -> None:
    peer.answers = [Answer(200, b"1"), Answer(204), Answer(200, b"3")]
    peer.socket.sendall((GET + b"\r\n") * 3)
    assert [peer.read() for _ in range(3)] == [
        (200, {"content-length": "1"}, b"1"),
        (204, {}, b""),
        (200, {"content-length": "1"}, b"3"),
    ]


def test_a_body_in_chunks(peer: Peer) -> None:
    peer.socket.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n")
    assert peer.read()[0] == 200
    assert peer.asked[0].body == b"abc"


def test_a_client_that_asks_before_it_sends_the_body_is_told_to_go_on(peer: Peer) -> None:
    peer.socket.sendall(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert peer.read()[0] == 100
    peer.socket.sendall(b"{}")
    assert peer.read()[0] == 200


def test_head_has_no_body(peer: Peer) -> None:
    peer.socket.sendall(b"HEAD /a HTTP/1.1\r\nHost: d\r\n\r\n" + GET + b"\r\n")
    assert peer.read(body=False) == (200, {"content-length": "2"}, b"")
    assert peer.read() == (200, {"content-length": "2"}, b"ok")


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET + b"Connection: close\r\n\r\n",
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    ],
    ids=["close", "1.0", "1.0 keep-alive", "upgrade"],
)
def test_the_connection_is_closed_after_some_requests(peer: Peer, request_bytes: bytes) -> None:
    peer.socket.sendall(request_bytes)
    status, headers, body = peer.read()
    assert (status, headers["connection"], body) == (200, "close", b"ok")
    assert peer.ended()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost d\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (GET + b"X: " + b"x" * (200 << 10), 431),
        (b"GET /" + b"x" * (200 << 10), 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * (200 << 10), 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * (200 << 10), 431),
        (POST + b"Content-Length: 16777217\r\n\r\n", 413),
        (POST + b"Content-Length: 16777217\r\nExpect: 100-continue\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1100000\r\n" + b"x" * 0x1100000, 413),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, bytes) else "",
)
def test_what_is_no_request_is_refused(peer: Peer, request_bytes: bytes, status: int) -> None:
    sending = gevent.spawn(peer.socket.sendall, request_bytes)
    found, headers, body = peer.read()
    assert (found, headers["connection"]) == (status, "close")
    assert orjson.loads(body)["error"]["message"]
    sending.join(60)
    assert sending.successful(), "what was on its way is taken, or the answer would be lost"
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.ended()
    assert not peer.asked


def test_what_came_before_something_else_is_answered(peer: Peer) -> None:
    peer.socket.sendall(GET + b"\r\n" + b"nonsense\r\n\r\n")
    status, headers, body = peer.read()
    assert (status, headers["connection"], body) == (200, "close", b"ok")


def test_a_handler_that_fails_costs_one_answer(peer: Peer) -> None:
    peer.answers = [ValueError("a fault of ours")]
    peer.socket.sendall((GET + b"\r\n") * 2)
    status, _, body = peer.read()
    assert (status, orjson.loads(body)["error"]["code"]) == (500, "internal")
    assert peer.read()[0] == 200


def test_a_client_that_says_nothing_is_closed(peer: Peer) -> None:
    peer.socket.sendall(GET + b"\r\n")
    peer.read()
    peer.settle()
    peer.now = connection.IDLE_SECONDS - 1
    peer.waiting.sweep()
    peer.socket.sendall(GET + b"\r\n")
    assert peer.read()[0] == 200
    peer.settle()
    peer.now += connection.IDLE_SECONDS
    peer.waiting.sweep()
    assert peer.ended()


def test_a_request_that_takes_for_ever_is_closed(peer: Peer) -> None:
    peer.socket.sendall(POST + b"Content-Length: 1000\r\n\r\n")
    peer.settle()
    while peer.now < connection.ARRIVAL_SECONDS - 1:
        peer.now += 1
        peer.waiting.sweep()
        peer.socket.sendall(b"x")
        peer.settle()
        assert not peer.greenlet.dead
    peer.now += 1
    peer.waiting.sweep()
    assert peer.ended()


def test_a_client_that_does_not_read_is_given_up(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_SECONDS", 0.2)
    sent: list[bool] = []
    peer.answers = [Answer(200, b"x" * (32 << 20), sent=lambda: sent.append(True))]
    peer.socket.sendall(GET + b"\r\n")
    peer.greenlet.join(60)
    assert isinstance(peer.greenlet.exception, OSError)
    assert sent == [True], "its room is given back"


def test_a_slow_reader_gets_all_of_it(peer: Peer) -> None:
    body = bytes(range(256)) * (1 << 15)
    peer.answers = [json_answer(200, {}), Answer(200, body)]
    peer.socket.sendall((GET + b"\r\n") * 2)
    assert peer.read()[2] == b"{}"
    assert peer.read()[2] == body


def test_at_the_end_those_without_a_request_go_and_the_others_are_answered(peer: Peer) -> None:
    peer.may_answer.clear()
    peer.socket.sendall(GET + b"\r\n")
    idle, half = Peer(), Peer()
    half.socket.sendall(POST + b"Content-Length: 5\r\n\r\n{")
    for each in (idle, half, peer):
        each.settle()
        each.closing = True
        each.waiting.end()
    assert idle.ended()
    assert half.ended()
    peer.settle()
    peer.may_answer.set()
    status, headers, _ = peer.read()
    assert (status, headers["connection"]) == (200, "close")
    assert peer.ended()
