"""When a request need not be waited for any more, and what is read of it."""

from __future__ import annotations

import sys

import pytest
from gunicorn.http.errors import LimitRequestHeaders
from hypothesis import given
from hypothesis import strategies as st

from serving.arriving import MAX_HEAD, Arriving, Received

MAX_BODY = 100
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
WHOLE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello",
    POST + b"Content-Length: 0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
]


def fed(*parts: bytes) -> Arriving:
    arriving = Arriving(MAX_BODY)
    for part in parts:
        arriving.feed(part)
    return arriving


@pytest.mark.parametrize("request_", WHOLE)
def test_a_request_is_ready_at_its_last_byte(request_: bytes) -> None:
    for end in range(len(request_)):
        assert not fed(request_[:end]).ready, request_[:end]
    assert fed(request_).ready
    assert fed(*(request_[i : i + 1] for i in range(len(request_)))).ready
    assert fed(request_ + b"GET / HT").ready


@pytest.mark.parametrize(
    "start",
    [
        b"\x00\x01",
        b"GET / HTTP/1.1\r\nno header\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + b"x" * (MAX_BODY + 1),
    ],
    ids=["no-http", "no-header", "two-lengths", "no-chunk", "large", "large-in-chunks"],
)
def test_what_is_refused_is_not_waited_for(start: bytes) -> None:
    assert fed(start).ready


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (POST, b"A: %s\r\n" % (b"x" * 1000)),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1;a=%s\r\nx\r\n" % (b"x" * 1000)),
    ],
    ids=["headers", "chunk-extensions"],
)
def test_all_that_is_not_body_is_limited(head: bytes, more: bytes) -> None:
    arriving = fed(head)
    sent = len(head)
    while not arriving.ready:
        arriving.feed(more)
        sent += len(more)
        assert sent <= MAX_HEAD + 2 * len(more)


def test_a_client_that_expects_is_known_when_its_head_is_there() -> None:
    head = b"Host: x\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n"
    assert fed(b"POST / HTTP/1.1\r\n", head, b"\r\n").expects
    assert not fed(b"POST / HTTP/1.1\r\n", head).expects
    assert not fed(b"POST / HTTP/1.0\r\n", head, b"\r\n").expects  # RFC 9110 section 10.1.1
    assert not fed(POST + b"Content-Length: 5\r\n\r\n").expects


@given(st.lists(st.tuples(st.sampled_from(["add", "read", "unread", "all"]), st.binary(max_size=20))))
def test_bytes_come_out_as_they_went_in(steps: list[tuple[str, bytes]]) -> None:
    received, expected = Received(), b""
    for step, data in steps:
        if step == "add":
            received.add(data)
            expected += data
        elif step == "unread":
            received.unread(data)
            expected = data + expected
        elif step == "read" and len(data) <= len(expected):
            assert received.read(len(data)) == expected[: len(data)]
            expected = expected[len(data) :]
        assert (len(received), received.all()) == (len(expected), expected)
    if expected:
        assert received.read() == expected


def test_what_was_read_is_not_kept() -> None:
    """Also where there is never nothing."""
    received = Received()
    received.add(b"x")
    for _ in range(1000):
        received.add(b"x" * 1000)
        received.read(1000)
    assert len(received) == 1
    assert sys.getsizeof(received._data) < 10_000


def test_nothing_waits_for_bytes_that_have_not_come() -> None:
    received = Received()
    with pytest.raises(TimeoutError):
        received.read()
    received.add(b"ab")
    with pytest.raises(TimeoutError):
        received.read(3)
    assert received.read(2) == b"ab"
    received.long_head = True
    with pytest.raises(LimitRequestHeaders):
        received.read()
