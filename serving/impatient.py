"""TLS sockets that never wait, so that a peer that is slow or silent holds no thread."""

from __future__ import annotations

import ssl

PIECE = 64 << 10


def make_impatient(context: ssl.SSLContext, seconds: float) -> ssl.SSLContext:
    """`context`, whose connections are never blocking. `serving.gthread` gives a peer `seconds` for its handshake, for
    all that one request sends, and to take some more of an answer."""

    class Socket(ImpatientSocket):
        patience = seconds

    context.sslsocket_class = Socket
    return context


class ImpatientSocket(ssl.SSLSocket):
    """gunicorn makes a socket blocking before each request: this one stays as it is, and `sendall` keeps what the peer
    does not take yet."""

    patience = 0.0
    unsent: bytes | memoryview = b""

    def setblocking(self, flag: bool) -> None:
        """It is not, and stays so."""
        del flag

    def settimeout(self, value: float | None) -> None:
        """Called when it is made."""
        del value
        super().settimeout(0.0)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]  # bytes is what gunicorn writes
        """Send now what can be sent; the rest is `unsent`."""
        self.unsent = bytes(self.unsent) + data if self.unsent else data
        self.flush(flags)

    def flush(self, flags: int = 0) -> bool:
        """Send of `unsent` what can be sent; whether that was all."""
        data = memoryview(self.unsent)
        try:
            while data:  # in pieces: OpenSSL says nothing of what was sent of one until all of it was
                data = data[self.send(data[:PIECE], flags) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
            pass
        self.unsent = data
        return not self.unsent
