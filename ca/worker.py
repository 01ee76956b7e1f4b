"""gunicorn's threaded worker, with two changes.

Silent connections hold no thread. The stock worker gives a new connection a thread until its first request has come, so
as many silent clients as there are threads stop the service. Here a connection that has sent nothing yet, before its
handshake or after it, goes back to the poller. The handshake itself is bounded by `serving.SOCKET_TIMEOUT`.

An answer is one write. The stock response writes head and body apart: two TLS records, two system calls, and on a busy
core a switch to the client between them (docs/adr/0015-worker.md).
"""

from __future__ import annotations

import select
import socket
import ssl
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """As the setting `worker_class`."""

    def handle(self, conn: TConn) -> Any:
        """One request, or the handshake of a new connection. Runs in a thread of the pool."""
        if not conn.initialized:
            if not conn.data_ready and not _readable(conn.sock):
                return _DEFER
            try:
                conn.sock.setblocking(True)
                conn.init()
            except (ssl.SSLError, OSError) as error:
                self.log.debug("handshake failed: %s", error)
                return False
            if not conn.sock.pending() and not _readable(conn.sock):
                return _DEFER
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Run the application on one request; whether the connection may be used again.

        An error before the first byte is the caller's to answer, one after it closes the connection (StopIteration).
        """
        response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=OneWrite)
        environ["wsgi.multithread"] = True
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        try:
            body = self.wsgi(environ, response.start_response)
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
            self.log.exception("failed in the middle of an answer")
            util.close_graceful(conn.sock)
            raise StopIteration from None
        return not response.should_close()


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


def _readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])
