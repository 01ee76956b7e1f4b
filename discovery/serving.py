"""The TLS of the agents' port: TLS 1.3, a client certificate of the trust bundle.

Under gunicorn the setting `ssl_context` wants one context for the life of the worker. `Rotating` stands in its place
and asks for the current one each time, so that a renewed certificate and a new trust bundle hold from the next
connection on.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import gevent
import structlog

from mesh.errors import HeddleError, Unavailable
from svid.material import SvidMaterial
from svid.tls import server_context

HANDSHAKE_SECONDS = 10.0

log = structlog.get_logger("discovery")


class Certificate(Protocol):
    """Where the serving certificate comes from."""

    def context(self) -> ssl.SSLContext:
        """The context for a new connection; Unavailable before there is one."""

    def not_ready(self) -> str:
        """What is missing; "" when nothing is."""


class SvidCertificate:
    """The SVID that a Keeper holds: `changed` is its `on_change`."""

    def __init__(self, why_not: Callable[[], object] = lambda: "") -> None:
        self._why_not = why_not
        self._context: ssl.SSLContext | None = None

    def changed(self, material: SvidMaterial) -> None:
        self._context = server_context(material)

    def context(self) -> ssl.SSLContext:
        if self._context is None:
            raise Unavailable("discovery has no certificate yet")
        return self._context

    def not_ready(self) -> str:
        return "" if self._context else f"there is no certificate yet: {self._why_not() or 'asking the ca'}"


class FileCertificate:
    """Three PEM files, loaded again when one of them is newer than before; while they are being replaced, the last."""

    def __init__(self, certificate: Path, key: Path, roots: Path) -> None:
        self._files = (certificate, key, roots)
        self._stamp: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        try:
            stamp = tuple(file.stat().st_mtime_ns for file in self._files)
            if stamp != self._stamp:
                self._context, self._stamp = self._load(), stamp
        except (OSError, ssl.SSLError) as error:
            if self._context is None:
                raise Unavailable(f"the serving certificate cannot be read: {error}") from None
        assert self._context is not None
        return self._context

    def not_ready(self) -> str:
        try:
            self.context()
        except HeddleError as error:
            return str(error)
        return ""

    def _load(self) -> ssl.SSLContext:
        certificate, key, roots = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(roots)
        return context


class Rotating:
    """What gevent's StreamServer needs of an `ssl.SSLContext`."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate

    def wrap_socket(self, connection: socket.socket, *, server_side: bool = True) -> ssl.SSLSocket:
        """The handshake, in the connection's own greenlet. One that fails ends that greenlet, without noise."""
        connection.settimeout(HANDSHAKE_SECONDS)
        try:
            return self._certificate.context().wrap_socket(connection, server_side=server_side)
        except (HeddleError, OSError) as error:  # ssl.SSLError is an OSError
            log.info("handshake failed", error=str(error))
            connection.close()
            raise gevent.GreenletExit from None
