"""What a workload holds once the ca has answered: its key, its chain, and the roots that it trusts.

A certificate lives here as PEM, the form in which Envoy, `ssl` and the wire want it. Times are Unix seconds.

`cryptography` is imported where it is used: the agent holds material without it, which saves it 8 MB (docs/adr/0060).
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass, field

from mesh.errors import InvalidInput, Unauthenticated
from mesh.identity import Identity
from svid.leaf import leaf_identity


@dataclass(frozen=True, slots=True)
class PodRef:
    """The pod that a caller runs in. `str()` is the value of the header `X-Heddle-Pod`."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}/{self.uid}"


@dataclass(frozen=True, slots=True)
class ForeignRoots:
    """The roots (PEM) of another trust domain, which count for its SPIFFE IDs alone.

    Without any, `trust_domain` is an alias of the own one, whose roots count for it too.
    """

    trust_domain: str
    roots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The roots (PEM, one certificate each) of one trust domain, and the number that grows whenever they change.

    `crls`: a revocation list (PEM) of each root, or none. `federated`: which other trust domains are trusted, for Envoy
    alone; nothing of the control plane trusts them. `revision` grows whenever what is revoked or federated changes.
    """

    trust_domain: str
    sequence: int
    roots: tuple[str, ...]
    crls: tuple[str, ...] = field(default=(), repr=False)
    revision: int = 0
    federated: tuple[ForeignRoots, ...] = field(default=(), repr=False)

    @property
    def stamp(self) -> tuple[int, int]:
        """Grows with every change."""
        return self.sequence, self.revision

    @property
    def pem(self) -> str:
        """All roots as one PEM text, the form that `ssl` and Envoy load."""
        return "".join(root if root.endswith("\n") else root + "\n" for root in self.roots)

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of the roots (SHA-256 of each certificate, hexadecimal)."""
        return frozenset(map(_fingerprint, self.roots))

    @property
    def by_trust_domain(self) -> dict[str, tuple[str, ...]]:
        """The roots of each trust domain that is trusted, the own one first."""
        return {self.trust_domain: self.roots} | {
            each.trust_domain: each.roots or self.roots for each in self.federated
        }

    @property
    def crls_by_trust_domain(self) -> dict[str, tuple[str, ...]]:
        """The lists of the own roots, for each trust domain for which those count."""
        aliases = (each.trust_domain for each in self.federated if not each.roots)
        return dict.fromkeys((self.trust_domain, *aliases), self.crls) if self.crls else {}


@dataclass(frozen=True, slots=True)
class SvidMaterial:
    """One X509-SVID with its private key. The key is left out of `repr`, so that no log can carry it."""

    identity: Identity
    serial: str  # lower-case hexadecimal, no leading zeros
    not_before: float
    not_after: float
    key_pem: bytes = field(repr=False)
    chain_pem: bytes  # the leaf first, then the intermediate
    bundle: TrustBundle
    root: str = ""  # fingerprint (SHA-256, hexadecimal) of the root that it chains to; empty when that is not known


def material_from_response(key_pem: bytes, body: object) -> SvidMaterial:
    """The material that a 201 of `POST /v1/certificates` describes; InvalidInput when it is not what was asked for.

    The certificate itself is the authority for serial, times and identity. It must be for our key (SPIFFE X509-SVID
    section 5 leaves proof of possession to the issuer; a ca that mixes up two answers must not pass unnoticed).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    if not isinstance(body, dict):
        raise InvalidInput("the ca's answer is not a JSON object")
    chain, bundle = body.get("chain"), body.get("bundle")
    if not isinstance(chain, list) or not chain or not all(isinstance(pem, str) for pem in chain):
        raise InvalidInput("the ca's answer has no certificate chain", field="chain")
    trust = bundle_from_json(bundle)
    try:
        leaf = x509.load_pem_x509_certificate(chain[0].encode())
        key = serialization.load_pem_private_key(key_pem, password=None)
    except ValueError as error:
        raise InvalidInput(f"the ca's answer holds a certificate that cannot be read: {error}", field="chain") from None
    if _public_der(leaf.public_key()) != _public_der(key.public_key()):
        raise InvalidInput("the ca's certificate is for another key", field="chain[0]")
    try:
        identity = leaf_identity(leaf.public_bytes(serialization.Encoding.DER), "the ca's certificate")
    except Unauthenticated as error:
        raise InvalidInput(error.message, field="chain[0]") from None
    return SvidMaterial(
        identity=identity,
        serial=f"{leaf.serial_number:x}",
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        key_pem=key_pem,
        chain_pem="".join(pem if pem.endswith("\n") else pem + "\n" for pem in chain).encode(),
        bundle=trust,
        root=_root_of(chain[-1], trust),
    )


def bundle_from_json(body: object) -> TrustBundle:
    """The bundle as `GET /v1/bundle` and every 201 carry it; InvalidInput when a field is missing or wrong."""
    if isinstance(body, dict):
        domain, sequence, roots = body.get("trustDomain"), body.get("sequence"), body.get("roots")
        if (
            isinstance(domain, str)
            and isinstance(sequence, int)
            and isinstance(roots, list)
            and roots
            and all(isinstance(root, str) for root in roots)
        ):
            crls, revision = body.get("crls", []), body.get("revision", 0)
            if isinstance(crls, list) and all(isinstance(crl, str) for crl in crls) and isinstance(revision, int):
                federated = _federated_from_json(body.get("federated", []))
                return TrustBundle(domain, sequence, tuple(roots), tuple(crls), revision, federated)
    raise InvalidInput("the ca's answer has no trust bundle", field="bundle", hint="is this address really the ca's?")


def _federated_from_json(body: object) -> tuple[ForeignRoots, ...]:
    try:
        return tuple(ForeignRoots(str(each["trustDomain"]), tuple(map(str, each["roots"]))) for each in body)  # type: ignore[attr-defined]  # TypeError says so
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"it does not say whom else to trust: {error}", field="bundle.federated") from None


def bundle_to_json(bundle: TrustBundle) -> dict[str, object]:
    """The inverse of `bundle_from_json`."""
    body: dict[str, object] = {
        "trustDomain": bundle.trust_domain,
        "sequence": bundle.sequence,
        "roots": list(bundle.roots),
    }
    if bundle.revision:
        body |= {"revision": bundle.revision, "crls": list(bundle.crls)}
    if bundle.federated:
        body["federated"] = [{"trustDomain": each.trust_domain, "roots": list(each.roots)} for each in bundle.federated]
    return body


def _fingerprint(pem: str) -> str:
    """Without `cryptography`; empty for what is no certificate."""
    _, _, rest = pem.partition("-----BEGIN CERTIFICATE-----")
    try:
        der = binascii.a2b_base64(rest.partition("-----END CERTIFICATE-----")[0])
    except binascii.Error:
        return ""
    return hashlib.sha256(der).hexdigest() if der else ""


def _root_of(last: str, bundle: TrustBundle) -> str:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes

    for pem in bundle.roots:
        try:
            root = x509.load_pem_x509_certificate(pem.encode())
            x509.load_pem_x509_certificates(last.encode())[-1].verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return root.fingerprint(hashes.SHA256()).hex()
    return ""


def _public_der(key: object) -> bytes:
    from cryptography.hazmat.primitives import serialization

    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every public key type has it; there is no common base
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded
