"""Throw-away authorities and certificates for tests, made by `cryptography` itself."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    chain_pem: str
    key_pem: str


class Authority:
    """A self-signed root that issues leaves of an hour."""

    def __init__(self, name: str = "test root") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(self._name, self._name, self._key.public_key())
        self._root = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.root_pem = self._root.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, *, uri: str = "", dns: str = "") -> Certificate:
        """A leaf with exactly these names, and with the key usage that X509-SVIDs have (section 4.3)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        if uri:
            names.append(x509.UniformResourceIdentifier(uri))
        if dns:
            names.append(x509.DNSName(dns))
        usage = x509.KeyUsage(True, *[False] * 8)
        builder = _builder(x509.Name([]), self._name, key.public_key()).add_extension(usage, critical=True)
        leaf = builder.add_extension(x509.SubjectAlternativeName(names), critical=True).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Certificate(leaf.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(
        now + datetime.timedelta(hours=1)
    )
