"""How the ca holds out against clients that are slow, silent or rude."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator

import pytest

from svid.client import fetch_bundle
from svid.tls import client_context
from tests.ca.harness import ApiServer, CaProcess, TokenMint

THREADS = 2


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    with ApiServer(TokenMint()) as api:
        state = tmp_path_factory.mktemp("ca") / "state"
        with CaProcess(state, api, "--threads", str(THREADS)) as process:
            yield process


def connected(ca: CaProcess) -> ssl.SSLSocket:
    return client_context(ca.roots).wrap_socket(socket.create_connection(("127.0.0.1", ca.port), 10))


def test_silent_clients_hold_no_thread(ca: CaProcess) -> None:
    plain = [socket.create_connection(("127.0.0.1", ca.port)) for _ in range(3 * THREADS)]
    secure = [connected(ca) for _ in range(3 * THREADS)]
    try:
        for _ in range(3):
            assert fetch_bundle(ca.address, ca.roots, timeout=4).sequence == 1
    finally:
        for sock in (*plain, *secure):
            sock.close()


def test_clients_that_leave_at_any_point(ca: CaProcess) -> None:
    for said in (b"", b"\x16\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5000):
        with socket.create_connection(("127.0.0.1", ca.port)) as sock:
            sock.sendall(said)
    for said in (b"POST", b"POST /v1/certificates HTTP/1.1\r\nContent-Length: 50\r\n\r\n{"):
        with connected(ca) as secure:
            secure.sendall(said)
    assert fetch_bundle(ca.address, ca.roots).sequence == 1


def test_requests_follow_each_other_on_one_connection(ca: CaProcess) -> None:
    with connected(ca) as sock:
        for _ in range(5):
            sock.sendall(b"GET /v1/bundle HTTP/1.1\r\nHost: ca\r\n\r\n")
            head, body = answer(sock)
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(body)["sequence"] == 1


def test_requests_sent_ahead_are_all_answered(ca: CaProcess) -> None:
    with connected(ca) as sock:
        sock.sendall(b"GET /v1/bundle HTTP/1.1\r\nHost: ca\r\n\r\n" * 3)
        data = b""
        while data.count(b'"sequence":1') < 3:
            part = sock.recv(65536)
            assert part
            data += part


def test_head_has_a_length_and_no_body(ca: CaProcess) -> None:
    with connected(ca) as sock:
        sock.sendall(b"HEAD /v1/bundle HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n")
        data = b""
        while part := sock.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length:" in head.lower()
    assert not body


def test_a_body_in_chunks_is_read_and_limited(ca: CaProcess) -> None:
    head = b"POST /v1/certificates HTTP/1.1\r\nHost: ca\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with connected(ca) as sock:
        sock.sendall(head + b"2\r\n{}\r\n0\r\n\r\n")
        assert answer(sock)[0].startswith(b"HTTP/1.1 400")
    with connected(ca) as sock:
        sock.sendall(head + b"19000\r\n" + b"x" * 0x19000 + b"\r\n0\r\n\r\n")
        assert answer(sock)[0].startswith(b"HTTP/1.1 413")


def answer(sock: ssl.SSLSocket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += sock.recv(65536)
    return head, body
