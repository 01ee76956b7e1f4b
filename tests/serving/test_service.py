"""Health, errors, logs and a new certificate, in the real process."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import pytest
from flask import Flask

from serving.health import serve_in_threads
from tests.serving.process import Service
from tests.serving.test_gthread import GET, answer, exchange
from tests.support.certificates import Authority


def test_health_and_metrics(service: Service) -> None:
    assert service.health("/healthz") == (200, "ok\n")
    assert service.health("/readyz") == (200, "ok\n")
    assert service.health("/metrics") == (200, "a 1\n")
    assert service.health("/nothing")[0] == 404


def test_a_health_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve_in_threads(taken.getsockname(), Flask("health"))


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/forbidden", 403, {"code": "forbidden", "message": "not for you", "hint": "ask"}),
        ("/broken", 500, {"code": "internal", "message": "the service failed; its log says why"}),
    ],
)
def test_errors_are_json(service: Service, path: str, status: int, error: dict[str, str]) -> None:
    head, body = exchange(service, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert head.startswith(f"HTTP/1.1 {status}".encode())
    assert json.loads(body) == {"error": error}


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not-found"),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method-not-allowed"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 415, "unsupported"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{",
            400,
            "invalid",
        ),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20000\r\n\r\n",
            413,
            "too-large",
        ),
    ],
)
def test_bad_requests(service: Service, request_: bytes, status: int, code: str) -> None:
    head, body = exchange(service, request_)
    assert head.startswith(f"HTTP/1.1 {status}".encode())
    assert json.loads(body)["error"]["code"] == code
    assert (b"allow: OPTIONS, POST" in head.replace(b"Allow", b"allow")) == (status == 405)


def test_what_failed_is_in_the_log_as_json(service: Service) -> None:
    exchange(service, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    failed = [line for line in service.lines() if line["event"] == "failed"][-1]
    assert failed["level"] == "error"
    assert "RuntimeError: secret" in failed["exception"]
    assert any(line["event"].startswith("Booting worker") for line in service.lines())


def test_a_new_certificate_holds_from_the_next_connection_on(tmp_path: Path) -> None:
    service = Service(tmp_path)
    try:
        with service.connect() as open_already:
            new = Authority("new root")
            service.show(new)
            with service.connect(new) as sock:
                sock.sendall(GET)
                assert answer(sock)[0].startswith(b"HTTP/1.1 200")
            with pytest.raises(ssl.SSLCertVerificationError):
                service.connect()
            open_already.sendall(GET)
            assert answer(open_already)[0].startswith(b"HTTP/1.1 200")
            service.key.write_text("not a key")
            with service.connect(new) as sock:
                sock.sendall(GET)
                assert answer(sock)[0].startswith(b"HTTP/1.1 200")
    finally:
        assert service.stop() == 0
