"""Which keys a workload may have: what a pair of real Envoys says of each kind, and that the ca says the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ca.authority import Authority
from ca.issue import Issuance, pem
from ca.ledger import Ledger
from ca.policy import Caller, Grant, check_key
from ca.profile import intermediate_certificate, root_certificate
from ca.request import SignableKey, parse_request
from ca.settings import CaSettings
from ca.sign import issuer_of, prepare, sign
from ca.store import DirectoryStore
from ca.trust import new_serial
from mesh.errors import Forbidden, InvalidInput
from mesh.identity import Identity
from mesh.key_kinds import KEY_KINDS, key_kind
from svid.request import new_key_request
from tests.support.tls_pairs import Ends, TlsPairs, tls_context

NOW, DAY = 1_700_000_000, 86400
END = NOW + 36_500 * DAY
ROOT_KEY, KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ROOT = root_certificate(ROOT_KEY, "cluster.local", new_serial(), NOW, END)
INTERMEDIATE = intermediate_certificate(KEY.public_key(), ROOT, ROOT_KEY, "cluster.local", new_serial(), NOW, END)
GRANT = Grant(Identity("cluster.local", "default", "a"), (), NOW + 1, END)
PEM = serialization.Encoding.PEM
UNLIKE = {
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}
"""Keys that Envoy serves to other clients, and refuses as a peer."""


def key_pair(kind: str) -> tuple[str, str]:
    """Chain and key as PEM; of a kind that the ca refuses, past its own check."""
    if kind in UNLIKE:
        key = UNLIKE[kind]
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        signable = SignableKey(public, kind)
    else:
        request = new_key_request(kind)
        signable, private = parse_request(request.csr_pem), request.key_pem.decode()
        assert signable.kind == kind
    leaf = sign(KEY, prepare(issuer_of(INTERMEDIATE), GRANT, signable, new_serial()))
    return pem(leaf) + INTERMEDIATE.public_bytes(PEM).decode(), private


def test_a_pair_of_envoys_speaks_with_each_kind_that_is_certified_and_no_other(tmp_path: Path) -> None:
    roots = {"trusted_ca": {"inline_string": ROOT.public_bytes(PEM).decode()}}
    ends = {kind: tls_context(*key_pair(kind), roots) for kind in (*KEY_KINDS, *UNLIKE)}
    with TlsPairs({kind: Ends(each, each) for kind, each in ends.items()}, tmp_path) as pairs:
        assert pairs.speaks() == set(KEY_KINDS)


@pytest.mark.parametrize("kind", sorted(UNLIKE))
def test_other_kinds_are_refused_with_the_way_out(kind: str) -> None:
    digest = None if kind == "Ed25519" else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(UNLIKE[kind], digest)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="use P-256, P-384, or RSA of 2048, 3072 or 4096 bits"):
        parse_request(request.public_bytes(PEM))


def test_policy_narrows_the_kinds() -> None:
    settings = CaSettings(leaf_keys=frozenset({"P-256", "P-384"}))
    check_key(SignableKey(b"", "P-384"), settings)
    with pytest.raises(Forbidden, match=r"no RSA-2048 keys \(use P-256 or P-384; the ca's --leaf-keys says which\)"):
        check_key(SignableKey(b"", "RSA-2048"), settings)


def test_what_policy_refuses_is_neither_signed_nor_recorded(tmp_path: Path) -> None:
    settings = CaSettings(leaf_keys=frozenset({"P-256"}))
    authority = Authority(DirectoryStore(tmp_path), lambda: b"x" * 32, settings, time.time)
    ledger = Ledger(None)
    issuance = Issuance(authority, ledger, settings, time.time)
    caller = Caller("token", GRANT.identity)
    with pytest.raises(Forbidden, match="no P-384 keys"):
        issuance.issue(caller, parse_request(new_key_request("P-384").csr_pem), None)
    assert ledger.list(valid_at=None) == []
    issuance.issue(caller, parse_request(new_key_request("P-256").csr_pem), None)
    assert [record.key_kind for record in ledger.list(valid_at=None)] == ["P-256"]


@pytest.mark.parametrize(
    ("kinds", "says"), [({"P-256", "P-521"}, "'P-521' is not a kind"), ({"P-384"}, "the control plane's own keys")]
)
def test_policy_that_cannot_be(kinds: set[str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        CaSettings(leaf_keys=frozenset(kinds))


@pytest.mark.parametrize(
    ("algorithm", "curve", "size", "kind"),
    [
        ("", "", "", "P-256"),
        ("ECDSA", "", "", "P-256"),
        ("ECDSA", "P384", "", "P-384"),
        ("", "P384", "", "P-384"),
        ("", "", "3072", "RSA-3072"),
        ("", "P384", "4096", "RSA-4096"),
        ("ECDSA", "P256", "2048", "P-256"),
    ],
)
def test_istios_words(algorithm: str, curve: str, size: str, kind: str) -> None:
    assert key_kind(algorithm, curve, size) == kind


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("RSA", "", ""), "ECC_SIGNATURE_ALGORITHM"),
        (("ECDSA", "P521", ""), "ECC_CURVE"),
        (("", "", "1024"), "WORKLOAD_RSA_KEY_SIZE"),
        (("", "", "big"), "WORKLOAD_RSA_KEY_SIZE"),
    ],
)
def test_istios_words_that_ask_for_what_cannot_be(words: tuple[str, str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        key_kind(*words)
    assert error.value.field == field
