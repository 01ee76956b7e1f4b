"""How the threaded worker holds out against clients that are slow, silent or rude."""

from __future__ import annotations

import json
import socket
import ssl

from tests.serving.process import Service
from tests.serving.service import MAX_BODY, THREADS

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


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
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        part = sock.recv(65536)
        assert part
        body += part
    return head, body


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


def test_a_request_that_does_not_end_is_given_up_and_is_no_error(service: Service) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    silent = [service.connect() for _ in range(2 * THREADS)]
    for sock in silent:
        sock.sendall(head)
    assert exchange(service, GET)[0].startswith(b"HTTP/1.1 200")
    for sock in silent:
        with sock:
            everything(sock)
    assert not [line for line in service.lines() if "TimeoutError" in line.get("exception", "")]


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


def test_an_answer_in_parts(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = everything(sock).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"


def test_an_answer_that_breaks_off_closes_the_connection(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(b"GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
        assert everything(sock).endswith(b"\r\n\r\n" + b"x" * 10)
    assert "failed in the middle of an answer" in [line["event"] for line in service.lines()]


def test_a_body_in_chunks_is_read_and_limited(service: Service) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert exchange(service, head + b"2\r\n{}\r\n0\r\n\r\n")[1] == b"{}"
    many = b"%x\r\n%s\r\n0\r\n\r\n" % (MAX_BODY + 1, b"x" * (MAX_BODY + 1))
    assert exchange(service, head + many)[0].startswith(b"HTTP/1.1 413")
