"""The TLS context for API servers, from an SVID or from files.

TLS 1.2 and above: API servers decide which, and offer no SPIFFE ID; who they are is not asked, because an injected pod
is no secret and nothing is changed by asking.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from serving.impatient import make_impatient
from svid.material import SvidMaterial
from svid.tls import load_key_pair

REQUEST_SECONDS = 5.0  # for all that one request sends, and for each step of a handshake


def context_of(material: SvidMaterial) -> ssl.SSLContext:
    """A context that presents `material`."""
    context = _context()
    load_key_pair(context, material)
    return context


def context_from(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context that presents what two PEM files hold."""
    context = _context()
    context.load_cert_chain(certificate, key)
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return make_impatient(context, REQUEST_SECONDS)
