"""TLS contexts from an SVID, and the check of who the peer is.

TLS 1.3 only; the chain is verified against the bundle's roots; host names are not looked at, because the identity is
the SPIFFE ID (`svid.leaf`). Keys reach OpenSSL through an anonymous file in memory: `ssl`
loads keys by path only, and a key must not touch a disk.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, overload

from mesh.errors import Forbidden, Unauthenticated
from mesh.identity import Identity
from svid.leaf import leaf_identity
from svid.material import SvidMaterial

# RFC 8446 section 6.2: unknown_ca, certificate_expired. OpenSSL's names for what the peer has sent.
_REFUSALS = frozenset({"TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_CERTIFICATE_EXPIRED"})


class HasPeerCertificate(Protocol):
    """`ssl.SSLSocket`, `ssl.SSLObject` and gevent's SSLSocket."""

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> object:
        """The peer's certificate as a dict, which is empty when it has not been verified."""

    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None:
        """The same as DER, verified or not."""


def client_context(roots_pem: str, material: SvidMaterial | None = None) -> ssl.SSLContext:
    """A context that trusts `roots_pem` alone and presents `material`, if any. Call `check_peer` afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _restrict(context, roots_pem)
    if material is not None:
        load_key_pair(context, material)
    return context


def server_context(material: SvidMaterial, *, client_certificate: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
    """A context that presents `material` and asks clients for a certificate of the same bundle.

    Clients whose certificate is on a revocation list of the bundle are refused. CERT_OPTIONAL lets clients without one
    in (the ca's callers with a token). No session tickets: every connection proves its certificate afresh, so none
    outlives its certificate by resumption.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = client_certificate
    context.num_tickets = 0
    _restrict(context, material.bundle.pem)
    if material.bundle.crls:
        _refuse_revoked(context, material.bundle.crls)
    load_key_pair(context, material)
    return context


def load_key_pair(context: ssl.SSLContext, material: SvidMaterial) -> None:
    """Load key and chain into `context` without a file on any disk (memfd_create(2))."""
    with _in_memory(material.key_pem + b"\n" + material.chain_pem) as path:
        context.load_cert_chain(path)


def peer_identity(connection: HasPeerCertificate) -> Identity | None:
    """The SPIFFE ID of the peer's verified certificate; None when it showed none.

    Unauthenticated when the certificate is not the leaf X509-SVID of exactly one workload.
    """
    if not connection.getpeercert():
        return None
    der = connection.getpeercert(True)
    return leaf_identity(der or b"")


def check_peer(connection: HasPeerCertificate, expected: Collection[Identity]) -> Identity:
    """The peer's identity when it is one of `expected`; Unauthenticated or Forbidden. Call after the handshake."""
    identity = peer_identity(connection)
    if identity is None:
        raise Unauthenticated("the peer showed no certificate")
    if identity not in expected:
        names = ", ".join(sorted(str(name) for name in expected))
        raise Forbidden(f"the peer is {identity}", hint=f"expected {names}")
    return identity


def refuses_certificate(error: BaseException | None) -> bool:
    """Whether the peer says by `error` that the certificate it was shown has ended, or leads to no root that it trusts.

    It may well take another one then, which is not so where this one was revoked. With TLS 1.3 a client hears of it
    when it reads, after a handshake that was well for itself.
    """
    return isinstance(error, ssl.SSLError) and error.reason in _REFUSALS


def _refuse_revoked(context: ssl.SSLContext, crls: Iterable[str]) -> None:
    with _in_memory("".join(crls).encode()) as path:  # `cadata` takes certificates only
        context.load_verify_locations(path)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path under which OpenSSL can read `content`; it is on no disk."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _restrict(context: ssl.SSLContext, roots_pem: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=roots_pem)
