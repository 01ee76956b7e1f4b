"""The TLS of the agents' port: TLS 1.3, a client certificate of the trust bundle.

Under gunicorn's gevent worker the setting `ssl_context` wants one context for the life of the worker. `Rotating` stands
in its place and asks for the current one each time, so that a renewed certificate and a new trust bundle hold from the
next connection on.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import gevent
import structlog

from mesh.errors import HeddleError
from serving.certificate import Certificate

HANDSHAKE_SECONDS = 10.0

log = structlog.get_logger("discovery")


def context_from(certificate: Path, key: Path, roots: Path) -> ssl.SSLContext:
    """A context that presents and trusts what three PEM files hold. `svid.tls.server_context` makes one of an SVID."""
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
