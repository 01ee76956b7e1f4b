"""The trust bundle as SPIFFE's JWK set: read back, judged by go-spiffe, and what is refused in those of others."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from ca.issue import pem
from ca.policy import Grant
from ca.profile import intermediate_certificate, root_certificate
from ca.request import parse_request
from ca.sign import issuer_of, prepare, sign
from ca.trust import new_serial
from mesh.errors import InvalidInput
from mesh.identity import Identity
from svid.material import TrustBundle
from svid.request import new_key_request
from svid.spiffe_bundle import MAX_ROOTS, parse_spiffe_bundle, spiffe_bundle_json

BEGIN, END = 1_700_000_000, 4_000_000_000
KEYS = [
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
    rsa.generate_private_key(65537, 2048),
]
ROOTS = [root_certificate(key, "cluster.local", new_serial(), BEGIN, END) for key in KEYS]
PEMS = tuple(root.public_bytes(serialization.Encoding.PEM).decode() for root in ROOTS)
BUNDLE = TrustBundle("cluster.local", 7, PEMS)
EC_ROOT, _, RSA_ROOT = spiffe_bundle_json(BUNDLE, 300)["keys"]


def test_what_is_published() -> None:
    published = spiffe_bundle_json(BUNDLE, 300)
    assert (published["spiffe_sequence"], published["spiffe_refresh_hint"]) == (7, 300)
    assert [sorted(key) for key in published["keys"]] == [
        ["crv", "kty", "use", "x", "x5c", "y"],
        ["crv", "kty", "use", "x", "x5c", "y"],
        ["e", "kty", "n", "use", "x5c"],
    ]
    read = parse_spiffe_bundle(json.dumps(published), "cluster.local")
    assert (read.roots, read.sequence, read.refresh_hint) == (PEMS, 7, 300)


def test_a_number_keeps_its_leading_zeros() -> None:
    """RFC 7518 section 6.2.1.2: a coordinate is as long as its curve."""
    for number in range(1, 600):  # one in 128 points has a coordinate that begins with a zero octet
        key = ec.derive_private_key(number, ec.SECP256R1())
        numbers = key.public_key().public_numbers()
        if min(numbers.x, numbers.y) >> 248 == 0:
            break
    else:
        raise AssertionError("600 keys, and none with a short coordinate")
    root = root_certificate(key, "cluster.local", new_serial(), BEGIN, END)
    bundle = TrustBundle("cluster.local", 1, (root.public_bytes(serialization.Encoding.PEM).decode(),))
    published = spiffe_bundle_json(bundle, 300)["keys"][0]
    assert len(published["x"]) == len(published["y"]) == 43


def test_go_federation_reads_it(go_federation: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps(spiffe_bundle_json(BUNDLE, 300)))
    said = subprocess.run(
        [go_federation, "bundle", "cluster.local", tmp_path / "bundle.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    authorities = sorted(root.public_bytes(serialization.Encoding.DER).hex() for root in ROOTS)
    judged = json.loads(said.stdout)
    assert sorted(judged.pop("authorities")) == authorities
    assert judged == {"sequence": 7, "refreshHint": 300}


@pytest.mark.parametrize("at", range(3), ids=["P-256", "P-384", "RSA"])
def test_go_federation_verifies_an_svid_by_it(go_federation: Path, tmp_path: Path, at: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    intermediate = intermediate_certificate(
        key.public_key(), ROOTS[at], KEYS[at], "cluster.local", new_serial(), BEGIN, END
    )
    request = parse_request(new_key_request().csr_pem)

    def judged(identity: Identity) -> subprocess.CompletedProcess[str]:
        grant = Grant(identity, (), BEGIN, END)
        leaf = sign(key, prepare(issuer_of(intermediate), grant, request, new_serial()))
        chain = pem(leaf) + intermediate.public_bytes(serialization.Encoding.PEM).decode()
        (tmp_path / "chain.pem").write_text(chain)
        (tmp_path / "bundle.json").write_text(json.dumps(spiffe_bundle_json(BUNDLE, 300)))
        command = [go_federation, "svid", "cluster.local", tmp_path / "bundle.json", tmp_path / "chain.pem"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = judged(Identity("cluster.local", "default", "a"))
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout) == "spiffe://cluster.local/ns/default/sa/a"
    assert judged(Identity("evil.example", "default", "a")).returncode != 0


def changed(key: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in (key | parameters).items() if value is not None}


@pytest.mark.parametrize(
    "passed_over",
    [
        changed(EC_ROOT, use="jwt-svid", kid="a"),
        changed(EC_ROOT, use="X509-SVID"),
        changed(EC_ROOT, use=None),
        changed(EC_ROOT, kty="OKP"),
        changed(EC_ROOT, x5c=None),
        changed(EC_ROOT, x5c=[]),
        "a text",
        None,
    ],
)
def test_other_keys_are_passed_over(passed_over: Any) -> None:
    text = json.dumps({"keys": [passed_over, RSA_ROOT], "more": {"of": "it"}})
    read = parse_spiffe_bundle(text, "other.example")
    assert (read.roots, read.sequence, read.refresh_hint) == ((PEMS[2],), None, None)


def test_only_the_first_certificate_of_a_key_counts() -> None:
    key = changed(EC_ROOT, x5c=[EC_ROOT["x5c"][0], "what is this"])
    assert parse_spiffe_bundle(json.dumps({"keys": [key, EC_ROOT]}), "other.example").roots == (PEMS[0],)


def leaf_key() -> dict[str, Any]:
    key = KEYS[0]
    builder = x509.CertificateBuilder(ROOTS[0].subject, ROOTS[0].subject, key.public_key(), 5)
    certificate = builder.not_valid_before(ROOTS[0].not_valid_before_utc).not_valid_after(ROOTS[0].not_valid_after_utc)
    der = certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return changed(EC_ROOT, x5c=[base64.b64encode(der).decode()])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("hello", "not JSON"),
        ([], "not a JWK set"),
        ({}, "not a JWK set"),
        ({"keys": {}}, "not a JWK set"),
        ({"keys": []}, "0 certificates"),
        ({"keys": [changed(EC_ROOT, use="jwt-svid")]}, "0 certificates"),
        ({"keys": [changed(EC_ROOT, x5c=["!"])]}, "cannot be read"),
        ({"keys": [changed(EC_ROOT, x5c=[7])]}, "cannot be read"),
        ({"keys": [changed(EC_ROOT, x5c=["AAAA"])]}, "cannot be read"),
        ({"keys": [changed(EC_ROOT, x=EC_ROOT["y"])]}, "another one"),
        ({"keys": [changed(RSA_ROOT, x5c=EC_ROOT["x5c"])]}, "another one"),
        ({"keys": [EC_ROOT], "spiffe_sequence": -1}, "spiffe_sequence"),
        ({"keys": [EC_ROOT], "spiffe_sequence": True}, "spiffe_sequence"),
        ({"keys": [EC_ROOT], "spiffe_sequence": 1 << 63}, "spiffe_sequence"),
        ({"keys": [EC_ROOT], "spiffe_refresh_hint": "soon"}, "spiffe_refresh_hint"),
        (lambda: {"keys": [leaf_key()]}, "not a certificate authority's"),
    ],
)
def test_what_cannot_be_used_is_refused(body: Any, says: str) -> None:
    value = body() if isinstance(body, Callable) else body  # type: ignore[arg-type]
    text = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(InvalidInput, match=says):
        parse_spiffe_bundle(text, "other.example")


def test_too_many_roots_are_refused() -> None:
    key = KEYS[0]
    many = [
        root_certificate(key, "cluster.local", new_serial(), BEGIN, END).public_bytes(serialization.Encoding.PEM)
        for _ in range(MAX_ROOTS + 1)
    ]
    bundle = TrustBundle("cluster.local", 1, tuple(root.decode() for root in many))
    with pytest.raises(InvalidInput, match="65 certificates"):
        parse_spiffe_bundle(json.dumps(spiffe_bundle_json(bundle, 1)), "cluster.local")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda of: (
            st.lists(of) | st.dictionaries(st.sampled_from(["keys", "use", "kty", "x5c", "spiffe_sequence"]), of)
        ),
    )
)
def test_garbage_is_never_more_than_refused(body: Any) -> None:
    with pytest.raises(InvalidInput):
        parse_spiffe_bundle(json.dumps(body), "other.example")
