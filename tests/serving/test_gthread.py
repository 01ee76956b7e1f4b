"""How the threaded worker holds out against clients that are slow, silent or rude."""

from __future__ import annotations

import json
import os
import socket
import ssl

from serving.gthread import DOOR_THREADS
from serving.http1 import MOST_AHEAD
from tests.serving.process import Service
from tests.serving.service import LARGE, MAX_BODY, SMALL_CONNECTIONS, SMALL_HELD, THREADS

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def exchange(service: Service, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to `request`, on a connection of its own."""
    with service.connect() as sock:
        sock.sendall(request)
        return answer(sock)


def answer(sock: ssl.SSLSocket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        assert part
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    body = bytearray(rest)
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        part = sock.recv(65536)
        assert part
        body += part
    return head, bytes(body)


def everything(sock: ssl.SSLSocket) -> bytes:
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def test_silent_clients_hold_no_thread(service: Service) -> None:
    plain = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(3 * THREADS)]
    secure = [service.connect() for _ in range(3 * THREADS)]
    try:
        for _ in range(3):
            assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")
    finally:
        for sock in (*plain, *secure):
            sock.close()


def test_more_connections_than_select_can_count(service: Service) -> None:
    """select(2) knows descriptors below 1,024 only, and the worker takes 1,000 connections beside what else is open."""
    idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(990)]
    try:
        for _ in range(3):
            assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")
    finally:
        for sock in idle:
            sock.close()


def test_clients_that_leave_at_any_point(service: Service) -> None:
    for said in (b"", b"\x16\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5000):
        with socket.create_connection(("127.0.0.1", service.port)) as sock:
            sock.sendall(said)
    for said in (b"POST", b"POST /echo HTTP/1.1\r\nContent-Length: 50\r\n\r\n{"):
        with service.connect() as secure:
            secure.sendall(said)
    assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")


def test_half_requests_hold_no_thread_and_are_given_up(service: Service) -> None:
    """And that is no error."""
    halves = (b"GET /", HEAD, HEAD + b"Content-Length: 50\r\n\r\n{", HEAD + CHUNKED + b"32\r\n{")
    silent = [(service.connect(), half) for half in halves * THREADS * 2]
    for sock, half in silent:
        sock.sendall(half)
    assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")
    for sock, _ in silent:
        with sock:
            assert everything(sock).startswith(b"HTTP/1.1 408 ")
    assert not [line for line in service.lines() if "TimeoutError" in line.get("exception", "")]


def test_half_handshakes_hold_no_thread_and_are_given_up(service: Service) -> None:
    half = [socket.create_connection(("127.0.0.1", service.port), 30) for _ in range(3 * DOOR_THREADS)]
    for sock in half:
        sock.sendall(b"\x16\x03\x01\x02\x00")
    assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")
    for sock in half:
        with sock:
            assert sock.recv(100) == b""


def test_a_request_byte_by_byte_is_answered(service: Service) -> None:
    with service.connect() as sock:
        for byte in HEAD + b"Content-Length: 2\r\n\r\n{}":
            sock.sendall(bytes([byte]))
        assert answer(sock)[1] == b"{}"


def test_a_client_that_expects_to_be_told_to_go_on(service: Service) -> None:
    with service.connect() as sock:
        for _ in range(2):
            sock.sendall(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"{}")
            head, body = answer(sock)
            assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"{}")


def test_clients_that_take_no_answer_hold_no_thread(service: Service) -> None:
    deaf = [service.connect() for _ in range(2 * THREADS)]
    for sock in deaf:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")
    for sock in deaf:
        sock.close()


def test_an_answer_larger_than_what_a_connection_takes_at_once(service: Service) -> None:
    for _ in range(2):
        assert exchange(service, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")[1] == b"x" * LARGE


def test_clients_that_do_not_close_hold_nobody_up(service: Service) -> None:
    """After the last answer the service waits for the client's end of the connection, beside other things."""
    staying = [service.connect() for _ in range(30)]
    for sock in staying:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer(sock)[0].startswith(b"HTTP/1.1 200")
    assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")
    for sock in staying:
        sock.close()


def test_what_is_held_for_all_clients_is_limited(small: Service) -> None:
    """The slowest go, and whoever sends all of a request has its answer."""
    size = MAX_BODY - 100
    head = HEAD + b"Content-Length: %d\r\n\r\n" % size
    slow = [small.connect() for _ in range(2 * SMALL_HELD // size)]
    for sock in slow:
        sock.sendall(head + b"[" * (size - 1))
    body = b'"' + b"x" * (size - 2) + b'"'
    assert exchange(small, head + body)[1] == body
    with slow[0]:
        assert everything(slow[0]).startswith(b"HTTP/1.1 503 ")
    for sock in slow:
        sock.close()


def test_more_connections_than_are_let_in(small: Service) -> None:
    """The oldest of those that have sent no request go."""
    idle = [socket.create_connection(("127.0.0.1", small.port)) for _ in range(2 * SMALL_CONNECTIONS)]
    half: list[ssl.SSLSocket] = []
    for _ in range(SMALL_CONNECTIONS - 1):
        half.append(small.connect())
        half[-1].sendall(HEAD)
    assert exchange(small, GET)[0].startswith(b"HTTP/1.1 200")
    for sock in (*idle, *half):
        sock.close()


def test_requests_follow_each_other_on_one_connection(service: Service) -> None:
    with service.connect() as sock:
        for number in range(5):
            sock.sendall(f"GET /?name={number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, body = answer(sock)
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(body) == {"hello": str(number)}


def test_requests_sent_ahead_are_all_answered(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(GET * 3)
        data = b""
        while data.count(b'{"hello":""}') < 3:
            part = sock.recv(65536)
            assert part
            data += part


def test_requests_sent_ahead_of_an_end_are_all_answered(service: Service) -> None:
    """Each is answered in a turn of its own, and the end is not looked at before all are."""
    with service.connect() as sock:
        sock.sendall(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        with socket.socket(fileno=os.dup(sock.fileno())) as plain:
            plain.shutdown(socket.SHUT_WR)  # of the connection: TLS is not asked
        data = b""
        while data.count(b'{"quick":true}') < 3:
            part = sock.recv(65536)
            assert part
            data += part


def test_at_most_so_many_requests_are_sent_ahead(service: Service) -> None:
    """Each that is known is a kilobyte of ours, for a dozen bytes of theirs."""
    for request in (GET, b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"):
        with service.connect() as sock:
            sock.sendall(request * 10 * MOST_AHEAD)
            assert everything(sock).count(b"HTTP/1.1 200") == MOST_AHEAD


def test_what_needs_nobody_is_answered_by_the_poller(service: Service) -> None:
    with service.connect() as sock:
        for _ in range(3):
            sock.sendall(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
            assert json.loads(answer(sock)[1]) == {"quick": True}
            sock.sendall(b"GET /quick-broken HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(sock)[0].startswith(b"HTTP/1.1 500")
            sock.sendall(GET)
            assert answer(sock)[0].startswith(b"HTTP/1.1 200")


def test_a_request_without_a_host(service: Service) -> None:
    """As some write by hand; HTTP/1.0 has none."""
    for request in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"):
        assert exchange(service, request)[0].startswith(b"HTTP/1.1 200")


def test_half_of_the_next_request_behind_a_whole_one(service: Service) -> None:
    quick = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
    for request in (GET, quick):
        with service.connect() as sock:
            sock.sendall(request + GET[:10])
            assert answer(sock)[0].startswith(b"HTTP/1.1 200")
            sock.sendall(GET[10:])
            assert answer(sock)[0].startswith(b"HTTP/1.1 200")
        with service.connect() as sock:
            sock.sendall(request + GET[:10])
            assert b"HTTP/1.1 408 " in everything(sock)


def test_an_answer_is_one_record(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(GET)
        assert sock.recv(65536).endswith(b'{"hello":""}')


def test_head_has_a_length_and_no_body(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = everything(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length:" in head.lower()
    assert not body


def test_an_answer_in_parts_is_put_together(service: Service) -> None:
    assert exchange(service, b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")[1] == b"onetwothree"


def test_an_answer_that_breaks_off_is_an_error(service: Service) -> None:
    head, body = exchange(service, b"GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (head.split()[1], json.loads(body)["error"]["code"]) == (b"500", "internal")
    assert "in the middle" in [line for line in service.lines() if line["event"] == "failed"][-1]["exception"]


def test_a_body_in_chunks_is_read_and_limited(service: Service) -> None:
    head = HEAD + CHUNKED
    assert exchange(service, head + b"2\r\n{}\r\n0\r\n\r\n")[1] == b"{}"
    many = b"%x\r\n%s\r\n0\r\n\r\n" % (MAX_BODY + 1, b"x" * (MAX_BODY + 1))
    assert exchange(service, head + many)[0].startswith(b"HTTP/1.1 413")
