"""The key and the certificate signing request of a workload. The key never leaves the process that made it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mesh.errors import InvalidInput
from mesh.key_kinds import DEFAULT_KEY, WAY_OUT


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A fresh private key (PKCS#8 PEM) and the request (PEM) that proves possession of it."""

    key_pem: bytes = field(repr=False)
    csr_pem: str


def new_key_request(kind: str = DEFAULT_KEY) -> KeyRequest:
    """A new key of `kind` (see mesh.key_kinds) and its request.

    The request names nobody: the ca takes the public key out of it and nothing else, and who this is from the caller.
    """
    key = _new_key(kind)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return KeyRequest(
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        csr_pem=csr.public_bytes(serialization.Encoding.PEM).decode(),
    )


def _new_key(kind: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    match kind.split("-"):
        case ["P", "256"]:
            return ec.generate_private_key(ec.SECP256R1())
        case ["P", "384"]:
            return ec.generate_private_key(ec.SECP384R1())
        case ["RSA", bits]:
            return rsa.generate_private_key(65537, int(bits))
    raise InvalidInput(f"{kind!r} is not a kind of key that Envoy can use", hint=WAY_OUT)
