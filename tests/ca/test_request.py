"""Requests: what is refused, and what is ignored. Keys that are refused: test_attacks_keys.py."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ca.request import MAX_REQUEST, parse_request
from mesh.errors import HeddleError, InvalidInput, TooLarge
from svid.request import new_key_request

KEY = ec.generate_private_key(ec.SECP256R1())
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM


def csr(key: object = KEY, *extensions: x509.ExtensionType, digest: object = hashes.SHA256()) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, digest).public_bytes(DER)  # type: ignore[arg-type]


def spki(key: object) -> bytes:
    return key.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


def pem_of(der: bytes, label: str = "CERTIFICATE REQUEST") -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (KEY, "P-256"),
        (ec.generate_private_key(ec.SECP384R1()), "P-384"),
        (rsa.generate_private_key(65537, 2048), "RSA-2048"),
    ],
    ids=["P-256", "P-384", "RSA-2048"],
)
def test_takes_the_key(key: object, kind: str) -> None:
    parsed = parse_request(csr(key))
    assert (parsed.spki, parsed.kind) == (spki(key), kind)


def test_takes_what_our_own_client_sends() -> None:
    assert parse_request(new_key_request().csr_pem).kind == "P-256"


@pytest.mark.parametrize("change", [str, lambda pem: "\n" + pem + "\n\n", lambda pem: pem.replace("\n", "\r\n")])
def test_takes_pem_as_programs_write_it(change: object) -> None:
    assert parse_request(change(pem_of(csr()))).spki == spki(KEY)  # type: ignore[operator]


def test_takes_the_old_label() -> None:
    assert parse_request(pem_of(csr(), "NEW CERTIFICATE REQUEST")).spki == spki(KEY)


def test_refuses_a_signature_by_another_key() -> None:
    mine, other = csr(), ec.generate_private_key(ec.SECP256R1())
    swapped = mine.replace(spki(KEY), spki(other))
    assert swapped != mine
    with pytest.raises(InvalidInput, match="not by the key"):
        parse_request(swapped)


@pytest.mark.parametrize("at", range(-30, -1, 7))
def test_refuses_a_damaged_signature(at: int) -> None:
    raw = bytearray(csr())
    raw[at] ^= 1
    with pytest.raises(InvalidInput):
        parse_request(bytes(raw))


def test_refuses_a_weak_digest() -> None:
    with pytest.raises(InvalidInput, match="SHA-256"):
        parse_request(csr(digest=hashes.SHA224()))


@pytest.mark.parametrize("tail", [b"\x00", b"\x30\x00", b"hello"])
def test_refuses_trailing_bytes(tail: bytes) -> None:
    for raw in (csr() + tail, pem_of(csr() + tail)):
        with pytest.raises(InvalidInput):
            parse_request(raw)


def test_refuses_trailing_text() -> None:
    with pytest.raises(InvalidInput, match="one PEM block"):
        parse_request(pem_of(csr()) + "and more")


def test_refuses_text_before() -> None:
    with pytest.raises(InvalidInput, match="one PEM block"):
        parse_request("Subject: me\n" + pem_of(csr()))


def test_refuses_two_requests() -> None:
    with pytest.raises(InvalidInput, match="one PEM block"):
        parse_request(pem_of(csr()) * 2)


def test_refuses_another_label() -> None:
    with pytest.raises(InvalidInput, match="one PEM block"):
        parse_request(pem_of(csr(), "CERTIFICATE"))


def test_refuses_labels_that_do_not_match() -> None:
    with pytest.raises(InvalidInput, match="one PEM block"):
        parse_request(pem_of(csr()).replace("END CERT", "END NEW CERT"))


def test_refuses_what_is_too_large() -> None:
    with pytest.raises(TooLarge, match="65536"):
        parse_request("x" * (MAX_REQUEST + 1))


def test_sixty_thousand_names_are_too_large() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName(f"n{n}") for n in range(60_000)])
    with pytest.raises(TooLarge):
        parse_request(csr(KEY, names))


def test_thousands_of_names_that_fit_are_not_even_read() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName(f"n{n}") for n in range(6_000)])
    assert parse_request(csr(KEY, names)) == parse_request(csr())


def test_names_and_wishes_are_ignored() -> None:
    wishes = (
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier("spiffe://cluster.local/ns/kube-system/sa/admin"),
                x509.DNSName("bank.example"),
            ]
        ),
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    )
    for wish in wishes:
        builder = builder.add_extension(wish, critical=True)
    assert parse_request(builder.sign(KEY, hashes.SHA256()).public_bytes(DER)) == parse_request(csr())


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda tail: b"0" + tail))
def test_garbage_is_never_more_than_refused(raw: bytes) -> None:
    with pytest.raises(HeddleError):
        parse_request(raw)


@given(st.text(max_size=100))
def test_garbage_in_pem_is_never_more_than_refused(text: str) -> None:
    with pytest.raises(HeddleError):
        parse_request(f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")


@given(st.integers(0, len(csr()) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_changes_whose_key_it_is(at: int, flip: int) -> None:
    raw = bytearray(csr())
    at %= len(raw)
    raw[at] ^= flip
    try:
        parsed = parse_request(bytes(raw))
    except HeddleError:
        return
    assert parsed.spki == spki(KEY)
