"""The signing core against the general builder: same fields, same extensions, same bytes up to the signature."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.issue import pem
from ca.policy import Grant
from ca.profile import intermediate_certificate, leaf_extensions, root_certificate
from ca.request import SignableKey
from ca.sign import Issuer, issuer_of, prepare, sign
from ca.trust import new_serial
from mesh.errors import InvalidInput
from mesh.identity import Identity

END = 4_000_000_000  # in 2096: leaves may end on both sides of 2050
DAY = 86400
ROOT_KEY, ISSUER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ROOT = root_certificate(ROOT_KEY, "cluster.local", new_serial(), 1_000_000, END)
INTERMEDIATE = intermediate_certificate(
    ISSUER_KEY.public_key(), ROOT, ROOT_KEY, "cluster.local", new_serial(), 1_000_000, END
)
ISSUER = issuer_of(INTERMEDIATE)
KEYS = [
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
    rsa.generate_private_key(65537, 2048),
    rsa.generate_private_key(65537, 3072),
]


def signable(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> SignableKey:
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return SignableKey(spki, "any")


def by_builder(grant: Grant, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, serial: int) -> x509.Certificate:
    public = key.public_key()
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(grant.identity))]
    names += [x509.DNSName(name) for name in grant.dns_names]
    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    identifier = INTERMEDIATE.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(INTERMEDIATE.subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(grant.not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(grant.not_after, UTC))
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .sign(ISSUER_KEY, hashes.SHA256())
    )


names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
domains = st.from_regex(r"[a-z0-9._-]{1,255}", fullmatch=True)
accounts = st.lists(names, min_size=1, max_size=3).map(".".join)
identities = st.builds(Identity, domains, names, accounts)
dns = st.lists(st.tuples(names, names).map(".".join), max_size=4).map(tuple)
starts = st.integers(1_000_000, END - 2)
serials = st.integers(1 << 63, (1 << 159) - 1)


@settings(max_examples=200)
@given(identities, dns, starts, st.integers(1, 400 * DAY), st.sampled_from(KEYS), serials)
def test_same_as_the_builder(
    identity: Identity,
    dns_names: tuple[str, ...],
    start: int,
    life: int,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    serial: int,
) -> None:
    grant = Grant(identity, dns_names, start, min(start + life, END))
    ours = x509.load_der_x509_certificate(sign(ISSUER_KEY, prepare(ISSUER, grant, signable(key), serial)))
    theirs = by_builder(grant, key, serial)
    assert list(ours.extensions) == list(theirs.extensions)
    assert ours.tbs_certificate_bytes == theirs.tbs_certificate_bytes
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
    ours.verify_directly_issued_by(INTERMEDIATE)


@pytest.mark.parametrize(
    "not_after", [2524607999, 2524608000], ids=["last second of 2049 is UTCTime", "2050 is GeneralizedTime"]
)
def test_the_year_2050(not_after: int) -> None:
    grant = Grant(Identity("cluster.local", "default", "a"), (), not_after - DAY, not_after)
    ours = x509.load_der_x509_certificate(sign(ISSUER_KEY, prepare(ISSUER, grant, signable(KEYS[0]), new_serial())))
    assert int(ours.not_valid_after_utc.timestamp()) == not_after


def test_signs_once() -> None:
    grant = Grant(Identity("cluster.local", "default", "a"), (), 2_000_000, 3_000_000)
    prepared = prepare(ISSUER, grant, signable(KEYS[0]), new_serial())
    sign(ISSUER_KEY, prepared)
    with pytest.raises(RuntimeError, match="signed already"):
        sign(ISSUER_KEY, prepared)


@pytest.mark.parametrize("serial", [0, 1, -(1 << 100), (1 << 63) - 1, 1 << 159])
def test_refuses_serials(serial: int) -> None:
    grant = Grant(Identity("cluster.local", "default", "a"), (), 2_000_000, 3_000_000)
    with pytest.raises(InvalidInput, match="serial"):
        prepare(ISSUER, grant, signable(KEYS[0]), serial)


@pytest.mark.parametrize(
    ("not_before", "not_after"), [(2_000_000, END + 1), (999_999, 2_000_000), (2_000_000, 2_000_000)]
)
def test_refuses_lives_outside_the_issuer(not_before: int, not_after: int) -> None:
    grant = Grant(Identity("cluster.local", "default", "a"), (), not_before, not_after)
    with pytest.raises(InvalidInput, match="issuer"):
        prepare(ISSUER, grant, signable(KEYS[0]), new_serial())


def test_the_longest_identity_and_many_names() -> None:
    identity = Identity("d" * 255, "n" * 63, ".".join(["s" * 63] * 3))
    many = tuple(f"{'x' * 60}{n}.example" for n in range(500))
    grant = Grant(identity, many, 2_000_000, 3_000_000)
    ours = x509.load_der_x509_certificate(sign(ISSUER_KEY, prepare(ISSUER, grant, signable(KEYS[3]), new_serial())))
    assert ours.tbs_certificate_bytes == by_builder(grant, KEYS[3], ours.serial_number).tbs_certificate_bytes


def test_more_than_fits_is_an_error() -> None:
    grant = Grant(Identity("d", "n", "s"), tuple(f"{'x' * 60}.{n}" for n in range(2000)), 2_000_000, 3_000_000)
    with pytest.raises(InvalidInput, match="64 KiB"):
        prepare(ISSUER, grant, signable(KEYS[0]), new_serial())


def test_authorities_have_what_the_standards_ask_for() -> None:
    for certificate, length in ((ROOT, None), (INTERMEDIATE, 0)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, length)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
        uris = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert uris.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cluster.local"]
    assert len(leaf_extensions(INTERMEDIATE)) == 4


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("key", KEYS, ids=["P-256", "P-384", "RSA-2048", "RSA-3072"])
def test_openssl_agrees(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, tmp_path: Path) -> None:
    openssl_verifies(ROOT, INTERMEDIATE, ISSUER_KEY, key, tmp_path)


@pytest.mark.parametrize("key", KEYS[1:3], ids=["P-384", "RSA-2048"])
def test_issuers_with_other_keys_sign_as_their_key_does(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    root = root_certificate(key, "cluster.local", new_serial(), 1_000_000, END)
    rsa_too = isinstance(key, rsa.RSAPrivateKey)
    own = rsa.generate_private_key(65537, 2048) if rsa_too else ec.generate_private_key(ec.SECP384R1())
    below = intermediate_certificate(own.public_key(), root, key, "cluster.local", new_serial(), 1_000_000, END)
    leaf = openssl_verifies(root, below, own, KEYS[0], tmp_path)
    expected = "ecdsa-with-SHA384" if key is KEYS[1] else "sha256WithRSAEncryption"
    assert {each.signature_algorithm_oid._name for each in (root, below, leaf)} == {expected}
    leaf.verify_directly_issued_by(below)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 1024)], ids=["P-521", "RSA-1024"]
)
def test_no_issuer_has_a_key_that_proxies_do_not_verify(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    with pytest.raises(InvalidInput, match="use P-256, P-384, or RSA"):
        root_certificate(key, "cluster.local", new_serial(), 1_000_000, END)


def openssl_verifies(
    root: x509.Certificate,
    intermediate: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    tmp_path: Path,
) -> x509.Certificate:
    """A leaf for `key`, whose chain `openssl verify -x509_strict` has found good for both purposes."""
    now = int(time.time())
    grant = Grant(Identity("cluster.local", "default", "a"), ("heddle-webhook.istio-system.svc",), now - 60, now + DAY)
    leaf = sign(issuer_key, prepare(issuer_of(intermediate), grant, signable(key), new_serial()))
    (tmp_path / "leaf.pem").write_text(pem(leaf))
    (tmp_path / "root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "intermediate.pem").write_bytes(intermediate.public_bytes(serialization.Encoding.PEM))
    chain = ["-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "intermediate.pem", tmp_path / "leaf.pem"]
    for purpose in ("sslserver", "sslclient"):
        verified = openssl("verify", "-x509_strict", "-purpose", purpose, *chain)
        assert verified.returncode == 0, verified.stderr
    as_authority = openssl("verify", "-CAfile", tmp_path / "root.pem", "-x509_strict", tmp_path / "intermediate.pem")
    assert as_authority.returncode == 0, as_authority.stderr
    return x509.load_der_x509_certificate(leaf)


def test_a_leaf_cannot_sign(tmp_path: Path) -> None:
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    now = int(time.time())
    grant = Grant(Identity("cluster.local", "default", "a"), (), now - 60, now + DAY)
    leaf = x509.load_der_x509_certificate(sign(ISSUER_KEY, prepare(ISSUER, grant, signable(leaf_key), new_serial())))
    below: Issuer = issuer_of(leaf)
    forged = sign(leaf_key, prepare(below, grant, signable(KEYS[0]), new_serial()))
    (tmp_path / "forged.pem").write_text(pem(forged))
    (tmp_path / "root.pem").write_bytes(ROOT.public_bytes(serialization.Encoding.PEM))
    untrusted = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (leaf, INTERMEDIATE))
    (tmp_path / "untrusted.pem").write_bytes(untrusted)
    paths = ["-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "untrusted.pem", tmp_path / "forged.pem"]
    assert openssl("verify", "-x509_strict", *paths).returncode != 0
