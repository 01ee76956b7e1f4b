"""Which signature algorithm an issuer signs with: that of its key, and a digest as strong as the key. Pure.

Sources: RFC 5758 section 3.2 (ECDSA: no parameters), RFC 4055 section 5 (RSA PKCS #1 v1.5: parameters are NULL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mesh.errors import InvalidInput

IssuerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""A key that signs certificates. One in a token (`ca.pkcs11`) is of these types too."""
IssuerPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signature algorithm: its AlgorithmIdentifier (DER), its digest, and what the key's `sign` takes for it."""

    identifier: bytes
    digest: hashes.SHA256 | hashes.SHA384
    arguments: tuple[Any, ...]


def _ecdsa(identifier: str, digest: hashes.SHA256 | hashes.SHA384) -> Scheme:
    return Scheme(bytes.fromhex(identifier), digest, (ec.ECDSA(digest),))


_ECDSA_SHA256 = _ecdsa("300a06082a8648ce3d040302", hashes.SHA256())
_ECDSA_SHA384 = _ecdsa("300a06082a8648ce3d040303", hashes.SHA384())
_RSA_SHA256 = Scheme(
    bytes.fromhex("300d06092a864886f70d01010b0500"), hashes.SHA256(), (padding.PKCS1v15(), hashes.SHA256())
)
MIN_RSA, MAX_RSA = 2048, 4096  # bits


def scheme_of(public_key: object) -> Scheme:
    """The algorithm for the issuer with this public key; InvalidInput for a key that no issuer may have."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if isinstance(public_key.curve, ec.SECP256R1):
            return _ECDSA_SHA256
        if isinstance(public_key.curve, ec.SECP384R1):
            return _ECDSA_SHA384
    if isinstance(public_key, rsa.RSAPublicKey) and MIN_RSA <= public_key.key_size <= MAX_RSA:
        return _RSA_SHA256
    raise InvalidInput(
        "the issuing certificate's key is not one that every proxy verifies",
        hint=f"use P-256, P-384, or RSA of {MIN_RSA} to {MAX_RSA} bits",
    )
