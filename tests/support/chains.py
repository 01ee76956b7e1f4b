"""Chains of certificates for tests: as the ca makes them, and as an attacker with a signing key might."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.policy import Grant
from ca.profile import intermediate_certificate, root_certificate
from ca.request import SignableKey, parse_request
from ca.sign import issuer_of, prepare, sign
from mesh.identity import Identity

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
DAY = 86400
REVIEWS = Identity("cluster.local", "default", "reviews")
URI = f"{REVIEWS}"


def key_pem(key: Any) -> bytes:
    """PKCS #8, not encrypted."""
    pem: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem


@dataclass
class Chain:
    """A root and an intermediate by `ca.profile`, valid since a minute before `now` (Unix seconds)."""

    now: int = field(default_factory=lambda: int(time.time()))
    trust_domain: str = "cluster.local"
    root_key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    root: Any = None

    def __post_init__(self) -> None:
        begin, domain = self.now - 60, self.trust_domain
        self.root = self.root or root_certificate(self.root_key, domain, 0xA0 << 120, begin, self.now + 3652 * DAY)
        self.intermediate = intermediate_certificate(
            self.key.public_key(), self.root, self.root_key, domain, 0xB0 << 120, begin, self.now + 30 * DAY
        )

    def leaf(self, key: Any, identity: Identity = REVIEWS, dns_names: tuple[str, ...] = ()) -> x509.Certificate:
        """A leaf as the ca makes it."""
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        return self.leaf_for(parse_request(csr.public_bytes(DER)), identity, dns_names)

    def leaf_for(
        self, key: SignableKey, identity: Identity = REVIEWS, dns_names: tuple[str, ...] = ()
    ) -> x509.Certificate:
        """One for the key of a request."""
        grant = Grant(identity, dns_names, self.now - 60, self.now + DAY)
        prepared = prepare(issuer_of(self.intermediate), grant, key, 0xC0 << 120)
        return x509.load_der_x509_certificate(sign(self.key, prepared))

    def odd_leaf(self, key: Any, changes: dict[str, Any]) -> x509.Certificate:
        """One that the ca would not make; see `odd_certificate`."""
        return odd_certificate(key.public_key(), self.intermediate, self.key, self.now, changes)

    def write(self, directory: Path, name: str, leaf: x509.Certificate, key: Any) -> tuple[Path, Path]:
        """Files of the leaf with the intermediate, and of its key."""
        chain, private = directory / f"{name}.chain.pem", directory / f"{name}.key.pem"
        chain.write_bytes(leaf.public_bytes(PEM) + self.intermediate.public_bytes(PEM))
        private.write_bytes(key_pem(key))
        return chain, private

    def write_root(self, directory: Path) -> Path:
        path = directory / "roots.pem"
        path.write_bytes(self.root.public_bytes(PEM))
        return path


def usage(*names: str) -> x509.KeyUsage:
    """With these bits and no others."""
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def purposes(*which: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(which)


def uris(*values: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(value) for value in values])


BOTH = purposes(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def odd_certificate(
    public_key: Any, issuer: x509.Certificate, issuer_key: Any, now: int, changes: dict[str, Any]
) -> x509.Certificate:
    """A leaf of `issuer` as it should be, but for `changes`: an extension under "constraints", "usage", "purposes" or
    "names" ((extension, critical), or None to leave it out), more of them under "more", a common name as "subject",
    another "serial"."""
    extensions: dict[str, tuple[x509.ExtensionType, bool] | None] = {
        "usage": (usage("digital_signature"), True),
        "purposes": (BOTH, False),
        "constraints": (x509.BasicConstraints(ca=False, path_length=None), True),
        "names": (uris(URI), True),
    }
    extensions |= {name: value for name, value in changes.items() if name in extensions}
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, changes["subject"])] if "subject" in changes else []
    begin = datetime.fromtimestamp(now - 60, UTC)
    builder = (
        x509.CertificateBuilder(issuer.subject, x509.Name(subject), public_key, changes.get("serial", 0xD0 << 120))
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for value, critical in [each for each in extensions.values() if each] + list(changes.get("more", ())):
        builder = builder.add_extension(value, critical)
    return builder.sign(issuer_key, hashes.SHA256())
