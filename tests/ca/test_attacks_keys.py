"""Keys that are not certified. Each request proves possession, so that nothing but its key is wrong."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from math import gcd, lcm, prod

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa

from ca.request import parse_request
from ca.weak_rsa import weakness
from mesh.errors import InvalidInput
from tests.support.der import length, sequence

DER = serialization.Encoding.DER
EC_PUBLIC_KEY, P256 = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06082a8648ce3d030107")
P224, P384, PRIME_FIELD = (
    bytes.fromhex("06052b81040021"),
    bytes.fromhex("06052b81040022"),
    bytes.fromhex("06072a8648ce3d0101"),
)
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
RSA_ENCRYPTION, RSA_SHA256 = (
    bytes.fromhex("300d06092a864886f70d0101010500"),
    bytes.fromhex("300d06092a864886f70d01010b0500"),
)
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")

SHA256 = hashes.SHA256()
KEY = ec.derive_private_key(77, ec.SECP256R1())
_NUMBERS = KEY.public_key().public_numbers()
X, Y = _NUMBERS.x.to_bytes(32, "big"), _NUMBERS.y.to_bytes(32, "big")
POINT = b"\x04" + X + Y
# FIPS 186-4 D.1.2.3
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
GENERATOR = (
    ec.derive_private_key(1, ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
)
RFC_6979_P256 = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
RFC_6979_P384 = int(
    "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5", 16
)
RFC_7515_P256 = 0x8E9B109E719098BF980487DF1F5D77E9CB29606EBED2263B5F57C213DF84F4B2
RFC_7517_P256 = 0xF3BD0C07A81FB932781ED52752F60CC89A6BE5E51934FE01938DDB55D8F77801
RSA = rsa.generate_private_key(65537, 2048)
N = RSA.public_key().public_numbers().n


def tlv(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + length(len(content)) + content


def integer(number: int) -> bytes:
    return tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def bits(content: bytes) -> bytes:
    return tlv(0x03, b"\x00" + content)


def request(spki: bytes, sign: Callable[[bytes], bytes], algorithm: bytes = ECDSA_SHA256) -> bytes:
    """A PKCS #10 request (DER) for this SubjectPublicKeyInfo."""
    info = sequence(b"\x02\x01\x00", b"\x30\x00", spki, b"\xa0\x00")
    return sequence(info, algorithm, bits(sign(info)))


def by_ec(point: bytes, parameters: bytes = P256, *algorithm: bytes) -> bytes:
    spki = sequence(sequence(*(algorithm or (EC_PUBLIC_KEY, parameters))), bits(point))
    return request(spki, lambda info: KEY.sign(info, ec.ECDSA(hashes.SHA256())))


def explicit(generator: bytes = GENERATOR) -> bytes:
    """The parameters of P-256, spelled out."""
    field, curve = sequence(PRIME_FIELD, integer(P)), sequence(*(tlv(4, n.to_bytes(32, "big")) for n in (P - 3, B)))
    return sequence(b"\x02\x01\x01", field, curve, tlv(4, generator), integer(ORDER), b"\x02\x01\x01")


def by_rsa(modulus: int, exponent: int, sign: Callable[[bytes], bytes] | None = None) -> bytes:
    spki = sequence(RSA_ENCRYPTION, bits(sequence(integer(modulus), integer(exponent))))
    return request(spki, sign or (lambda info: RSA.sign(info, padding.PKCS1v15(), hashes.SHA256())), RSA_SHA256)


def padded(info: bytes) -> bytes:
    """What is signed, which with the exponent 1 is the signature too."""
    return b"\x00\x01" + b"\xff" * (256 - 3 - 51) + b"\x00" + SHA256_INFO + hashlib.sha256(info).digest()


def prime(like: Callable[[], int]) -> int:
    """A number that `like` makes and that is prime (Fermat's test is enough here)."""
    return next(number for number in iter(like, 0) if gcd(number, SMALL) == 1 and pow(2, number - 1, number) == 1)


def signed_with_primes(*primes: int) -> bytes:
    """A request whose signature is right for the product, made by hand: libraries do not load every such key."""
    n, d = prod(primes), pow(65537, -1, lcm(*(each - 1 for each in primes)))
    assert n.bit_length() == 2048
    return by_rsa(n, 65537, lambda info: pow(int.from_bytes(padded(info), "big"), d, n).to_bytes(256, "big"))


PRIMES = [n for n in range(2, 702) if all(n % d for d in range(2, int(n**0.5) + 1))]
SMALL = prod(PRIMES)
SOURCE = random.Random(2017)


def primes_of(bits_: int) -> tuple[int, int]:
    numbers = rsa.generate_private_key(65537, bits_).private_numbers()
    return numbers.p, numbers.q


def close() -> bytes:
    start = primes_of(2048)[0]
    following = iter(range(start + 2, start + 100_000, 2))
    return signed_with_primes(start, prime(lambda: next(following)))


def roca() -> bytes:
    """Primes k * M + (65537^a mod M), M the product of the first 126 primes: as the broken generator made them."""
    spare = 1024 - SMALL.bit_length()

    def one() -> int:
        return (SOURCE.getrandbits(spare) | 3 << spare - 2) * SMALL + pow(65537, SOURCE.getrandbits(60), SMALL)

    while True:
        p, q = prime(one), prime(one)
        if (p * q).bit_length() == 2048:
            return signed_with_primes(p, q)


def small_factor() -> bytes:
    while True:
        p, q = primes_of(2039)
        if (521 * p * q).bit_length() == 2048:
            return signed_with_primes(521, p, q)


def of(key: object, digest: hashes.HashAlgorithm | None = SHA256) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, digest).public_bytes(DER)  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "P-224": (lambda: of(ec.generate_private_key(ec.SECP224R1())), "not a certificate signing|curve"),
    "P-192": (lambda: by_ec(b"\x04" + bytes(48), bytes.fromhex("06082a8648ce3d030101")), "not a certificate"),
    "P-521": (lambda: of(ec.generate_private_key(ec.SECP521R1())), "curve secp521r1"),
    "secp256k1": (lambda: of(ec.generate_private_key(ec.SECP256K1())), "curve secp256k1"),
    "brainpool": (lambda: of(ec.generate_private_key(ec.BrainpoolP256R1())), "curve brainpoolP256r1"),
    "ed25519": (lambda: of(ed25519.Ed25519PrivateKey.generate(), None), "type of key"),
    "ed448": (lambda: of(ed448.Ed448PrivateKey.generate(), None), "type of key"),
    "dsa": (lambda: of(dsa.generate_private_key(1024)), "type of key"),
    "explicit-parameters": (lambda: by_ec(POINT, explicit()), "not written as"),
    # CVE-2020-0601: the key of somebody else, with a generator that makes it one's own.
    "explicit-parameters-with-another-generator": (lambda: by_ec(POINT, explicit(POINT)), "explicit parameters"),
    "no-parameters": (lambda: by_ec(POINT, b"", EC_PUBLIC_KEY), "not a certificate"),
    "null-parameters": (lambda: by_ec(POINT, b"\x05\x00"), "not a certificate"),
    "point-not-on-the-curve": (lambda: by_ec(POINT[:-1] + bytes((POINT[-1] ^ 1,))), "Invalid key"),
    "point-of-another-curve": (lambda: by_ec(POINT, P384), "not a certificate"),
    "point-at-infinity": (lambda: by_ec(b"\x00"), "infinity"),
    "point-zero": (lambda: by_ec(b"\x04" + bytes(64)), "Invalid key"),
    "coordinate-beyond-the-field": (lambda: by_ec(b"\x04" + (P + 5).to_bytes(32, "big") + Y), "Invalid key"),
    "compressed-point": (lambda: by_ec(bytes((2 + (Y[-1] & 1),)) + X), "not written as"),
    "hybrid-point": (lambda: by_ec(bytes((6 + (Y[-1] & 1),)) + X + Y), "not written as"),
    "something-after-the-point": (lambda: by_ec(POINT + b"\x00"), "not a certificate"),
    "rsa-1024": (lambda: of(rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "rsa-2047": (lambda: by_rsa(N >> 1 | 1, 65537), "2047 bits"),
    "rsa-2049": (lambda: by_rsa(1 << 2048 | N, 65537), "2049 bits"),
    "rsa-of-16384-bits": (lambda: by_rsa(N << 14336 | 1, 65537), "16384 bits"),
    "exponent-1": (lambda: by_rsa(N, 1, padded), "e must be|exponent"),
    "exponent-2": (lambda: by_rsa(N, 2), "e must be|exponent"),
    "exponent-3": (lambda: of(rsa.generate_private_key(3, 2048)), "exponent"),
    "exponent-even": (lambda: by_rsa(N, 65538), "e must be|exponent"),
    "exponent-huge": (lambda: by_rsa(N, 2**2000 + 1), "exponent|not a certificate"),
    "exponent-negative": (lambda: by_rsa(N, -3), "not a certificate"),
    "modulus-even": (lambda: by_rsa(N + 1, 65537), "small factor"),
    "modulus-zero": (lambda: by_rsa(0, 65537), "not a certificate"),
    "modulus-negative": (lambda: by_rsa(-N, 65537), "not a certificate"),
    "modulus-with-a-small-factor": (small_factor, "small factor"),
    "primes-next-to-each-other": (close, "next to each other"),
    "roca": (roca, "ROCA"),
    "private-key-1": (lambda: of(ec.derive_private_key(1, ec.SECP256R1())), "a small number"),
    "private-key-63": (lambda: of(ec.derive_private_key(63, ec.SECP384R1())), "a small number"),
    "private-key-minus-1": (lambda: of(ec.derive_private_key(ORDER - 1, ec.SECP256R1())), "a small number"),
    "the-example-of-rfc-6979": (lambda: of(ec.derive_private_key(RFC_6979_P256, ec.SECP256R1())), "RFC 6979 A.2.5"),
    "the-other-of-rfc-6979": (lambda: of(ec.derive_private_key(RFC_6979_P384, ec.SECP384R1())), "RFC 6979 A.2.6"),
    "the-example-of-rfc-7515": (lambda: of(ec.derive_private_key(RFC_7515_P256, ec.SECP256R1())), "RFC 7515 A.3"),
    "the-example-of-rfc-7517": (lambda: of(ec.derive_private_key(RFC_7517_P256, ec.SECP256R1())), "RFC 7517 A.2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(InvalidInput, match=said) as refused:
        parse_request(make())
    assert refused.value.field == "csr"


def test_made_by_hand_is_no_reason() -> None:
    assert parse_request(by_ec(POINT)).kind == "P-256"
    assert parse_request(by_rsa(N, 65537)).kind == "RSA-2048"
    assert parse_request(signed_with_primes(*primes_of(2048))).kind == "RSA-2048"


def test_ordinary_keys_are_not_weak() -> None:
    keys = [rsa.generate_private_key(65537, size).public_key().public_numbers() for size in (2048, 3072)]
    assert [weakness(each.n) for each in keys] == ["", ""]


def test_a_square_is_found() -> None:
    assert "next to each other" in weakness(primes_of(2048)[0] ** 2)
