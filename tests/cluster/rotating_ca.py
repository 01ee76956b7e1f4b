"""A ca whose leaves live for seconds, and whose intermediates and roots a test replaces while it is asked.

The real ca's rotation of its root is tested with the ca; here it matters what the webhook makes of it.
"""

from __future__ import annotations

import datetime
import threading
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mesh.identity import Identity
from tests.agent.control_plane import TRUST_DOMAIN, Authority, CaService

LEAF_SECONDS = 14.0


class Root:
    """A root with an intermediate that can be replaced."""

    def __init__(self, name: str) -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = _pem(_certificate(self._name, self._name, self._key.public_key(), self._key, ca=True))
        self._intermediates = 0
        self.replace_intermediate()

    def replace_intermediate(self) -> None:
        self._intermediates += 1
        self._issuer = _name(f"intermediate {self._intermediates}")
        self._issuer_key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(self._issuer, self._name, self._issuer_key.public_key(), self._key, ca=True)
        self._issuer_pem = _pem(made)

    def issue(self, public_key: Any, identity: Identity, dns: str) -> tuple[x509.Certificate, list[str]]:
        """A leaf, and its chain."""
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity)), x509.DNSName(dns)])
        leaf = _certificate(x509.Name([]), self._issuer, public_key, self._issuer_key, ca=False, names=names)
        return leaf, [_pem(leaf), self._issuer_pem]


class RotatingCa(CaService):
    """Signs with `signing`; its bundle holds `roots` under the number `sequence`."""

    def __init__(self, identity: Identity, dns: str) -> None:
        self._identity_of, self._dns = identity, dns
        self.signing = Root("first")
        self._signs = threading.Lock()
        self.roots = [self.signing]
        self.sequence = 1
        self.own = Authority()
        super().__init__(self.own, identity)

    def set_roots(self, *roots: Root) -> None:
        self.roots, self.sequence = list(roots), self.sequence + 1

    def sign_with(self, root: Root) -> None:
        """What is issued from now on is of `root`."""
        with self._signs:
            self.signing = root

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        with self._signs:
            leaf, chain = self.signing.issue(csr.public_key(), self._identity_of, self._dns)
            self.issued.append(f"{leaf.serial_number:x}")
        # The root of the ca's own certificate stays: how the ca replaces that is another matter.
        roots = [root.pem for root in self.roots] + [self.own.root_pem]
        return 201, {
            "chain": chain,
            "bundle": {"trustDomain": TRUST_DOMAIN, "sequence": self.sequence, "roots": roots},
            "serial": f"{leaf.serial_number:x}",
            "notBefore": leaf.not_valid_before_utc.isoformat(),
            "notAfter": leaf.not_valid_after_utc.isoformat(),
        }


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: Any,
    signing: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    names: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    ends = now + (datetime.timedelta(days=1) if ca else datetime.timedelta(seconds=LEAF_SECONDS))
    made = (
        x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=2))
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(_usage(signing=ca), critical=True)
    )
    if names is not None:
        made = made.add_extension(names, critical=True)
    return made.sign(signing, hashes.SHA256())


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signing, key_cert_sign=signing, crl_sign=signing, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
