"""TLS sockets that give up: a peer that is silent, or sends byte by byte, must not hold a thread for long."""

from __future__ import annotations

import ssl
import time


def make_impatient(context: ssl.SSLContext, seconds: float) -> ssl.SSLContext:
    """`context`, whose connections time out: after `seconds` for each step of a handshake and each write, and for all
    that one request sends."""

    class Socket(_ImpatientSocket):
        patience = seconds

    context.sslsocket_class = Socket
    return context


class _ImpatientSocket(ssl.SSLSocket):
    """gunicorn makes a socket blocking, without a timeout, at the beginning of each request; that starts the clock."""

    patience = 0.0
    _until = 0.0

    def setblocking(self, flag: bool) -> None:
        self._until = time.monotonic() + self.patience
        self.settimeout(None if flag else 0.0)

    def settimeout(self, value: float | None) -> None:
        super().settimeout(self.patience if value is None else value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if self.gettimeout():
            self.settimeout(max(self._until - time.monotonic(), 0.001))
        return super().recv(buflen, flags)
