"""The key and the certificate signing request of a workload. The key never leaves the process that made it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A fresh private key (PKCS#8 PEM) and the request (PEM) that proves possession of it."""

    key_pem: bytes = field(repr=False)
    csr_pem: str


def new_key_request() -> KeyRequest:
    """A new P-256 key and its request.

    The request names nobody: the ca takes the public key out of it and nothing else, and who this is from the caller.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return KeyRequest(
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        csr_pem=csr.public_bytes(serialization.Encoding.PEM).decode(),
    )
