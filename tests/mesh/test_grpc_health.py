"""One gRPC health check, byte by byte. tests/local/test_probes.py asks a real gRPC server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.grpc_health import HealthCheck

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678"
HEADERS = b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88"
TRAILERS = b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"
GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8)
RESET = b"\x00\x00\x04\x03\x00\x00\x00\x00\x01" + bytes(4)


def answer(status: int, *, padding: int = 0) -> bytes:
    message = b"\x00\x00\x00\x00\x02\x08" + bytes((status,))
    if padding:
        message = bytes((padding,)) + message + bytes(padding)
    return len(message).to_bytes(3, "big") + bytes((0, 8 if padding else 0)) + b"\x00\x00\x00\x01" + message


@given(
    status=st.integers(0, 3),
    padding=st.integers(0, 20),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_wherever_the_stream_is_cut(status: int, padding: int, cuts: list[int]) -> None:
    stream = SETTINGS + PING + HEADERS + answer(status, padding=padding) + TRAILERS
    check, sent, number = HealthCheck("10.0.0.1:8080", "shop"), b"", 0
    while stream:
        length = cuts[number % len(cuts)]
        assert check.serving is None
        sent += check.receive(stream[:length])
        stream, number = stream[length:], number + 1
    assert check.serving is (status == 1)
    assert sent == b"\x00\x00\x00\x04\x01\x00\x00\x00\x00" + b"\x00\x00\x08\x06\x01\x00\x00\x00\x00" + b"12345678"


def test_trailers_alone_are_no_status() -> None:
    check = HealthCheck("10.0.0.1:8080", "")
    check.receive(SETTINGS + TRAILERS)
    assert check.serving is False


@pytest.mark.parametrize("said", [GOAWAY, RESET, b""])
def test_a_call_that_ends_without_an_answer(said: bytes) -> None:
    with pytest.raises(ValueError, match="the server ended"):
        HealthCheck("10.0.0.1:8080", "").receive(said)


@pytest.mark.parametrize(("authority", "service"), [("x" * 127, ""), ("10.0.0.1:80", "x" * 128)])
def test_what_is_too_long_is_said(authority: str, service: str) -> None:
    with pytest.raises(ValueError, match="too long"):
        HealthCheck(authority, service)
