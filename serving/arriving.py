"""What has come of a request, and whether that is all of it.

A request is given to the application's threads when nothing of it need be waited for. llhttp tells when that is; what
the request means, and what is wrong with it, gunicorn's parser tells afterwards, from the same bytes.
"""

from __future__ import annotations

from gunicorn.http.errors import LimitRequestHeaders
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

MAX_HEAD = 64 << 10
"""Bytes of a request beside its body: also what goes between the chunks of one, and after them."""


class Arriving:
    """One request, as its bytes come in. `max_body` is in bytes: of a larger body the rest is not waited for."""

    def __init__(self, max_body: int) -> None:
        self.ready = False
        """There is nothing to wait for: it is complete, too large, or no HTTP."""
        self.expects = False
        """The client waits to be told that it may send the body (RFC 9110 section 10.1.1)."""
        self.long_head = False
        self._asked = False
        self._max_body, self._beside, self._body = max_body, 0, 0
        self._parser = HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """The next bytes. Those of a following request may be among them, and are not looked at."""
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserUpgrade, HttpParserError):
            self.ready = True
        if not self.ready and self._beside > MAX_HEAD:
            self.ready = self.long_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """For llhttp."""
        name = name.lower()
        if name == b"content-length":
            self.ready = self.ready or int(value) > self._max_body
        elif name == b"expect":
            self._asked = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """For llhttp."""
        self.expects = self._asked and self._parser.get_http_version() != "1.0"

    def on_body(self, body: bytes) -> None:
        """For llhttp."""
        self._beside -= len(body)
        self._body += len(body)
        self.ready = self.ready or self._body > self._max_body

    def on_message_complete(self) -> None:
        """For llhttp."""
        self.ready = True


class Received:
    """Bytes between a connection and gunicorn's parser, which takes them for its unreader. It never waits for more."""

    def __init__(self) -> None:
        self.long_head = False
        self._data, self._at = bytearray(), 0  # what is before `_at` has been read

    def __len__(self) -> int:
        return len(self._data) - self._at

    def add(self, data: bytes) -> None:
        """At the end."""
        if self._at:  # here, so that it does not grow by what was read if there is always some of another request
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def all(self) -> bytes:
        """What there is, which stays."""
        return bytes(memoryview(self._data)[self._at :])

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        """`size` bytes, or all that there are. TimeoutError, or what gunicorn answers 431 to, when there are fewer."""
        del read_ahead
        wanted = max(len(self), 1) if size is None else size
        if wanted > len(self):
            if self.long_head:
                raise LimitRequestHeaders(f"a request has at most {MAX_HEAD} bytes beside its body")
            raise TimeoutError("the request is not complete")
        piece = bytes(memoryview(self._data)[self._at : self._at + wanted])
        self._at += wanted
        if not len(self):
            self._data, self._at = bytearray(), 0
        return piece

    def unread(self, data: bytes) -> None:
        """Put back what was read."""
        self._data[: self._at] = data
        self._at = 0
