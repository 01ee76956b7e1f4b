"""Who would fail without a root: judged from what Envoy tells of its secrets."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.rotation.documents import fingerprint
from cli.trust_check import Roots, choose, failures, in_use
from mesh.errors import InvalidInput
from tests.ca.authorities import Made, make

LATER = datetime.now(UTC) + timedelta(days=3650)
OLD, NEW = make("old", ends=LATER), make("new", ends=LATER)
ROOTS = Roots(OLD.certificate, (NEW.certificate,))
STRANGER = make("stranger", ends=LATER)


def leaf(root: Made, uri: str = "spiffe://cluster.local/ns/a/sa/b") -> bytes:
    """A chain, as Envoy shows it: the leaf, and the intermediate above it."""
    between = make("between " + root.certificate.subject.rfc4514_string(), root, path_length=0, ends=LATER)
    own = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(between.certificate.subject, x509.Name([]), own.public_key(), 1)
        .not_valid_before(between.certificate.not_valid_before_utc)
        .not_valid_after(LATER)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
    )
    made = builder.sign(between.key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM) + between.pem


def dump(chain: bytes | None, *trusted: Made, spiffe: bool = False) -> dict[str, Any]:
    """As of `/config_dump?resource=dynamic_active_secrets`."""
    source: dict[str, Any] = {"inline_string": b"".join(root.pem for root in trusted).decode()}
    context: dict[str, Any] = {"trusted_ca": source}
    if spiffe:
        in_bytes = {"inline_bytes": base64.b64encode(source["inline_string"].encode()).decode()}
        domains = [{"name": "cluster.local", "trust_bundle": in_bytes}]
        context = {"custom_validator_config": {"typed_config": {"trust_domains": domains}}}
    certificate = {"certificate_chain": {"inline_string": chain.decode()}} if chain else {}
    return {
        "configs": [
            {"name": "default", "secret": {"tls_certificate": certificate}},
            {"name": "ROOTCA", "secret": {"validation_context": context}},
        ]
    }


@pytest.mark.parametrize("spiffe", [False, True])
def test_who_goes_on(spiffe: bool) -> None:
    assert failures(in_use(dump(leaf(NEW), OLD, NEW, spiffe=spiffe)), ROOTS) == []
    assert failures(in_use(dump(leaf(NEW), NEW, spiffe=spiffe)), ROOTS) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (dump(leaf(OLD), OLD, NEW), ["leads to the root that would go"]),
        (dump(leaf(STRANGER), OLD, NEW), ["leads to no root of the bundle"]),
        (dump(leaf(NEW), OLD), [f"does not trust {fingerprint(NEW.certificate)[:16]}"]),
        (dump(leaf(OLD), OLD), ["leads to the root that would go", "does not trust"]),
        (dump(leaf(NEW), STRANGER), ["trusts no root of the mesh"]),
        (dump(None, OLD, NEW), ["serves no certificate"]),
        (dump(leaf(NEW, "https://shop.example"), OLD, NEW), ["serves no certificate"]),
        ({}, ["serves no certificate", "trusts no root"]),
    ],
)
def test_who_would_fail_and_why(found: dict[str, Any], said: list[str]) -> None:
    sentences = failures(in_use(found), ROOTS)
    assert len(sentences) == len(said)
    assert all(part in sentence for part, sentence in zip(said, sentences, strict=True))


def rotation(**roles: Made) -> dict[str, Any]:
    return {"roots": [{"role": role, "fingerprint": fingerprint(made.certificate)} for role, made in roles.items()]}


BUNDLE = [OLD.pem.decode(), NEW.pem.decode()]


def test_the_root_that_a_rotation_takes_away_is_meant_unless_one_is_named() -> None:
    assert choose(BUNDLE, rotation(active=OLD, incoming=NEW), "") == ROOTS
    assert choose(BUNDLE, rotation(active=NEW, outgoing=OLD), "") == ROOTS
    named = fingerprint(OLD.certificate)[:10].upper()
    assert choose(BUNDLE, rotation(active=OLD), named) == ROOTS


@pytest.mark.parametrize(
    ("bundle", "without", "said"),
    [(BUNDLE, "", "not clear which"), (BUNDLE, "zz", "no root"), (BUNDLE[:1], "only", "everybody fails")],
)
def test_a_root_that_cannot_be_meant(bundle: list[str], without: str, said: str) -> None:
    if without == "only":
        without = fingerprint(OLD.certificate)
    with pytest.raises(InvalidInput, match=said):
        choose(bundle, rotation(active=OLD), without)
