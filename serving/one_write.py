"""An answer as one write.

gunicorn's response writes head and body apart: two TLS records, two system calls, and on a busy core a switch to the
client between them (docs/adr/0015-worker.md).
"""

from __future__ import annotations

import ssl
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi


class OneWrite(wsgi.Response):  # type: ignore[misc]
    """Holds the head back until there is a body to send with it, or none to come."""

    def __init__(self, req: Any, sock: ssl.SSLSocket, cfg: Any) -> None:
        super().__init__(req, sock, cfg)
        self.headers_sent: bool = False
        self._head = b""
        self.written = False

    def send_headers(self) -> None:
        """Put the head together; it is written by `_emit_body` or `close`."""
        if not self.headers_sent:
            lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def close(self) -> None:
        """The end of the answer."""
        self.send_headers()
        self._flush(b"")
        super().close()

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            self._flush(b"")
            super()._emit_body(data)
        else:
            self._flush(data)

    def _flush(self, data: bytes) -> None:
        held, self._head = self._head + data, b""
        if held:
            self.written = True
            util.write(self.sock, held)


def answer(worker: Any, req: Any, sock: ssl.SSLSocket, client: Any, server: Any, *, last: bool) -> bool:
    """Run the application of `worker` on one request; whether the connection may be used again (never if `last`).

    An error before the first byte is the worker's to answer, one after it closes the connection (StopIteration).
    """
    response, environ = wsgi.create(req, sock, client, server, worker.cfg, response_class=OneWrite)
    environ["wsgi.multithread"] = True
    if last:
        response.force_close()
    try:
        body = worker.wsgi(environ, response.start_response)
        try:
            for part in body:
                response.write(part)
            response.close()
        finally:
            if hasattr(body, "close"):
                body.close()
    except OSError:
        raise
    except Exception:
        if not response.written:
            raise
        worker.log.exception("failed in the middle of an answer")
        raise StopIteration from None
    return not response.should_close()
