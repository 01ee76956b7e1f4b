"""Requests that want more than they may have: each is refused, or certified as if it had not wished for anything.

The certificate is compared with the one that a request without wishes gets: every field, every extension.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ca.request import MAX_REQUEST, parse_request
from mesh.errors import InvalidInput, TooLarge
from tests.support.chains import DER, REVIEWS, Chain, purposes, uris, usage
from tests.support.der import parsed, sequence

CHAIN = Chain()
KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def request(
    *extensions: tuple[x509.ExtensionType, bool], subject: x509.Name | None = None, key: Any = KEY
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


def signed(info: bytes) -> bytes:
    """A request with any content, and a signature that is right."""
    signature = b"\x00" + KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    return sequence(info, ECDSA_SHA256, b"\x03" + bytes((len(signature),)) + signature)


def certified(der: bytes) -> x509.Certificate:
    return CHAIN.leaf_for(parse_request(der))


def names(*values: x509.GeneralName) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName(values), True


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def twice() -> bytes:
    """Two lists of names, of which a reader may take the first or the last."""
    (info,) = parsed(request(names(*uris(str(REVIEWS)))).tbs_certrequest_bytes)
    (attribute,) = info.children[3].children
    extensions = attribute.children[1].children[0]
    (admin,) = parsed(request(names(*uris("spiffe://cluster.local/ns/kube-system/sa/admin"))).tbs_certrequest_bytes)
    extensions.children += admin.children[3].children[0].children[1].children[0].children
    return signed(info.encoded())


def wish(uri: str) -> bytes:
    return request(names(*uris(uri))).public_bytes(DER)


# What a request may wish for, in vain.
WISHES: dict[str, Callable[[], bytes]] = {
    "another-identity": lambda: wish("spiffe://cluster.local/ns/kube-system/sa/admin"),
    "another-trust-domain": lambda: wish("spiffe://bank.example/ns/default/sa/reviews"),
    "the-trust-domain-itself": lambda: wish("spiffe://cluster.local"),
    "dot-dot": lambda: wish("spiffe://cluster.local/ns/default/sa/../../../ns/kube-system/sa/admin"),
    "percent-encoded": lambda: wish("spiffe://cluster.local/ns/default%2Fsa%2Fadmin/sa/reviews"),
    "upper-case": lambda: wish("SPIFFE://CLUSTER.LOCAL/NS/DEFAULT/SA/ADMIN"),
    "empty-segments": lambda: wish("spiffe://cluster.local//ns//default//sa//admin"),
    "2049-bytes": lambda: wish("spiffe://cluster.local/ns/default/sa/".ljust(2049, "a")),
    "dns-names": lambda: request(names(x509.DNSName("kubernetes.default.svc"), x509.DNSName("*"))).public_bytes(DER),
    "ip-addresses": lambda: request(
        names(x509.IPAddress(ip_address("10.0.0.1")), x509.IPAddress(ip_address("::1")))
    ).public_bytes(DER),
    "e-mail": lambda: request(names(x509.RFC822Name("root@example.com"))).public_bytes(DER),
    "directory-name": lambda: request(names(x509.DirectoryName(common_name("root")))).public_bytes(DER),
    "common-name": lambda: request(subject=common_name("kubernetes.default.svc")).public_bytes(DER),
    # The subject is what the API server takes for user and groups.
    "kubernetes-administrator": lambda: request(
        subject=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"), *common_name("admin")])
    ).public_bytes(DER),
    "nul-in-a-name": lambda: request(names(x509.DNSName("a.svc\0.evil.example"))).public_bytes(DER),
    "ca-true": lambda: request((x509.BasicConstraints(ca=True, path_length=None), True)).public_bytes(DER),
    "key-usage": lambda: request((usage("key_cert_sign", "crl_sign"), True)).public_bytes(DER),
    "any-purpose": lambda: request(
        (purposes(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.OCSP_SIGNING), False)
    ).public_bytes(DER),
    "no-name-constraints": lambda: request(
        (x509.NameConstraints([x509.DNSName("evil.example")], None), True)
    ).public_bytes(DER),
    "unknown-critical-extension": lambda: request(
        (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True)
    ).public_bytes(DER),
    "must-staple": lambda: request((x509.TLSFeature([x509.TLSFeatureType.status_request]), True)).public_bytes(DER),
    "extensions-twice": twice,
    "six-thousand-names": lambda: request(names(*(x509.DNSName(f"n{n}") for n in range(6_000)))).public_bytes(DER),
    "challenge-password": lambda: (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
        .sign(KEY, hashes.SHA256())
        .public_bytes(DER)
    ),
}


@pytest.mark.parametrize("name", WISHES)
def test_wishes_change_nothing(name: str) -> None:
    plain, wished = certified(request().public_bytes(DER)), certified(WISHES[name]())
    assert wished.tbs_certificate_bytes == plain.tbs_certificate_bytes
    (uri,) = wished.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert uri.value == str(REVIEWS)


def changed(at: int, encoded: bytes) -> bytes:
    """A request whose information has something else at `at`, signed afterwards."""
    (info,) = parsed(request().tbs_certrequest_bytes)
    (info.children[at],) = parsed(encoded)
    return signed(info.encoded())


def with_signature_of(der: bytes) -> bytes:
    """Our request, under the signature of another."""
    (mine,), (other,) = parsed(request(subject=common_name("a")).public_bytes(DER)), parsed(der)
    mine.children[2] = other.children[2]
    return mine.encoded()


def with_algorithm(encoded: bytes) -> bytes:
    (mine,) = parsed(request().public_bytes(DER))
    (mine.children[1],) = parsed(encoded)
    return mine.encoded()


def key_of_another() -> bytes:
    """The request of somebody, replayed with our key in it."""
    spki = [key.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo) for key in (KEY, OTHER)]
    return request().public_bytes(DER).replace(*spki)


def long_lengths() -> bytes:
    """BER: the outermost length in three octets where one would do, which DER forbids."""
    der = request().public_bytes(DER)
    assert der[1] == 0x81
    return b"\x30\x83\x00\x00" + der[2:]


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "signature-of-another-request": (lambda: with_signature_of(request().public_bytes(DER)), "not by the key"),
    "replayed-with-another-key": (key_of_another, "not by the key"),
    "signed-by-another-key": (lambda: with_signature_of(request(key=OTHER).public_bytes(DER)), "not by the key"),
    "algorithm-of-another-digest": (
        lambda: with_algorithm(bytes.fromhex("300a06082a8648ce3d040303")),
        "not by the key",
    ),
    "algorithm-rsa": (lambda: with_algorithm(bytes.fromhex("300d06092a864886f70d01010b0500")), "not by the key"),
    "algorithm-unknown": (
        lambda: with_algorithm(bytes.fromhex("300506032a0304")),
        "not signed|not a cert",
    ),
    "sha-1": (lambda: with_algorithm(bytes.fromhex("300906072a8648ce3d0401")), "not signed with SHA-256"),
    "version-2": (lambda: changed(0, b"\x02\x01\x01"), "not a certificate signing request"),
    "version-minus-1": (lambda: changed(0, b"\x02\x01\xff"), "not a certificate signing request"),
    "trailing-der": (lambda: request().public_bytes(DER) + b"\x05\x00", "not a certificate signing request"),
    "two-requests": (lambda: request().public_bytes(DER) * 2, "not a certificate signing request"),
    "cut-short": (lambda: request().public_bytes(DER)[:-1], "not a certificate signing request"),
    "lengths-that-are-not-der": (long_lengths, "not a certificate signing request"),
    "indefinite-length": (lambda: b"\x30\x80" + request().public_bytes(DER)[3:] + b"\0\0", "not a certificate"),
    "a-length-of-four-gigabytes": (lambda: b"\x30\x84\xff\xff\xff\xff" + bytes(100), "not a certificate"),
    "a-thousand-levels": (lambda: b"\x30\x80" * 1000, "not a certificate"),
    "a-certificate": (lambda: CHAIN.root.public_bytes(DER), "not a certificate"),
    "a-private-key": (
        lambda: KEY.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        "not a certificate",
    ),
    "nothing": (lambda: b"", "not one PEM block"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ones_are_refused(name: str) -> None:
    make, said = BROKEN[name]
    with pytest.raises(InvalidInput, match=said):
        parse_request(make())


def test_names_by_the_ten_thousand_are_too_large() -> None:
    der = request(names(*(x509.DNSName(f"n{n}") for n in range(10_000)))).public_bytes(DER)
    assert len(der) > MAX_REQUEST
    with pytest.raises(TooLarge):
        parse_request(der)
