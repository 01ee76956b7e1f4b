"""Roots and intermediates as somebody might bring them, right ones and wrong ones, made by `cryptography` itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
PEM = serialization.Encoding.PEM


@cache
def key(name: str) -> Any:
    """A P-256 key, the same one for the same name."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    def key_pem(self, passphrase: bytes | None = None) -> bytes:
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        encoded: bytes = self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)
        return encoded


def make(
    name: str,
    above: Made | None = None,
    *,
    own_key: Any = None,
    path_length: int | None = None,
    constraints: x509.BasicConstraints | None = None,
    constraints_critical: bool = True,
    no_constraints: bool = False,
    usage: bool | None = True,
    begins: datetime = NOW - YEAR,
    ends: datetime = NOW + 10 * YEAR,
    uris: tuple[str, ...] = (),
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    subject: x509.Name | None = None,
    subject_key: bool = True,
    authority_key: bool = True,
    digest: Any = None,
) -> Made:
    """An authority of this name under `above`, or a root; each keyword makes one thing about it different."""
    own = own_key or key(name)
    title = subject if subject is not None else _title(name)
    issuer, issuer_key = (above.certificate.subject, above.key) if above else (title, own)
    builder = (
        x509.CertificateBuilder(issuer, title, own.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if not no_constraints:
        says = constraints or x509.BasicConstraints(ca=True, path_length=path_length)
        builder = builder.add_extension(says, critical=constraints_critical)
    if usage is not None:
        builder = builder.add_extension(_usage(signs=usage), critical=True)
    if subject_key:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    if authority_key and above:
        named = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key())
        builder = builder.add_extension(named, critical=False)
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    return Made(builder.sign(issuer_key, digest or hashes.SHA256()), own)


def cacerts(signing: Made, root: Made, *between: Made, **change: bytes) -> dict[str, bytes]:
    """The files of Istio's Secret; `change` sets one by its name with _ for - and without its ending."""
    files = {
        "root-cert.pem": root.pem,
        "ca-cert.pem": signing.pem,
        "ca-key.pem": signing.key_pem(),
        "cert-chain.pem": b"".join(made.pem for made in (signing, *between)),
    }
    return files | {name.replace("_", "-") + ".pem": content for name, content in change.items()}


def _title(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
