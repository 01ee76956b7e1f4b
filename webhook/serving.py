"""The TLS context for API servers, from an SVID that is kept current or from files.

TLS 1.2 and above: API servers decide which, and offer no SPIFFE ID; who they are is not asked, because an injected pod
is no secret and nothing is changed by asking.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from svid.material import SvidMaterial
from svid.tls import load_key_pair


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


SOCKET_TIMEOUT = 10.0  # seconds for each read or write: a silent peer must not hold a thread


class _ImpatientSocket(ssl.SSLSocket):
    """A blocking socket that gives up: gunicorn's threads switch sockets to blocking without a timeout."""

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def settimeout(self, value: float | None) -> None:
        super().settimeout(SOCKET_TIMEOUT if value is None else value)
