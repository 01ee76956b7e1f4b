"""The TLS context for API servers, from an SVID that is kept current or from files.

TLS 1.2 and above: API servers decide which, and offer no SPIFFE ID; who they are is not asked, because an injected pod
is no secret and nothing is changed by asking.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from svid.material import SvidMaterial
from svid.tls import load_key_pair

REQUEST_SECONDS = 5.0  # for all that one request sends, and for each step of a handshake


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _ImpatientSocket
    return context


def context_of(material: SvidMaterial) -> ssl.SSLContext:
    """A context that presents `material`."""
    context = _server_context()
    load_key_pair(context, material)
    return context


class FileContext:
    """A context of two PEM files, loaded again when one of them is newer than before."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._stamp: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None
        self.current()

    def current(self) -> ssl.SSLContext:
        """The context for a new connection; while files are being replaced, the one before."""
        try:
            stamp = tuple(file.stat().st_mtime_ns for file in self._files)
            if stamp != self._stamp:
                context = _server_context()
                context.load_cert_chain(*self._files)
                self._context, self._stamp = context, stamp
        except (OSError, ssl.SSLError):
            if self._context is None:
                raise
        assert self._context is not None
        return self._context


class _ImpatientSocket(ssl.SSLSocket):
    """A blocking socket that gives up: a peer that is silent, or sends byte by byte, must not hold a thread for long.

    gunicorn makes a socket blocking at the beginning of each request; that starts the clock.
    """

    _until = 0.0

    def setblocking(self, flag: bool) -> None:
        self._until = time.monotonic() + REQUEST_SECONDS
        self.settimeout(None if flag else 0.0)

    def settimeout(self, value: float | None) -> None:
        super().settimeout(REQUEST_SECONDS if value is None else value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if self.gettimeout():
            self.settimeout(max(self._until - time.monotonic(), 0.001))
        return super().recv(buflen, flags)
