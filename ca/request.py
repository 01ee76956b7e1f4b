"""What a certificate signing request may bring: a public key, and the proof that the sender holds its private half.

Everything else in it (subject, SANs, CA:TRUE, key usage) is never read, so it can neither be granted nor cost time.
Sources: RFC 2986 (PKCS #10), RFC 7468 (PEM), RFC 5480 (EC keys); CA/Browser Forum Baseline Requirements 6.1.5 for RSA.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ca.known_keys import whose
from ca.weak_rsa import weakness
from mesh.errors import InvalidInput, TooLarge
from mesh.key_kinds import RSA_SIZES, WAY_OUT
from svid.der import elements, first

MAX_REQUEST = 64 * 1024  # bytes, as PEM or as DER
RSA_EXPONENT = 65537
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}

# Two labels: RFC 7468 section 7 has the second as a legacy of the first.
_PEM = re.compile(
    rb"\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----\r?\n"
    rb"([A-Za-z0-9+/=\r\n]+)"
    rb"-----END (?(1)NEW )CERTIFICATE REQUEST-----\s*\Z"
)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_FIELD = "csr"


@dataclass(frozen=True, slots=True)
class SignableKey:
    """A public key that policy lets us sign: its SubjectPublicKeyInfo, encoded afresh from the parsed key (DER)."""

    spki: bytes
    kind: str  # "P-256", "P-384", "RSA-2048" ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, lower-case hexadecimal."""
        return hashlib.sha256(self.spki).hexdigest()


def parse_request(request: str | bytes) -> SignableKey:
    """The key of a PEM (str or bytes) or DER (bytes) request; InvalidInput or TooLarge unless it is exactly one."""
    raw = request.encode("utf-8", "replace") if isinstance(request, str) else request
    if len(raw) > MAX_REQUEST:
        raise TooLarge(f"a certificate signing request is at most {MAX_REQUEST} bytes long", field=_FIELD)
    der = raw if raw[:1] == b"\x30" else _der_of_pem(raw)
    try:
        csr = x509.load_der_x509_csr(der)
        key = csr.public_key()
        digest = csr.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise _malformed(str(error)) from None
    kind = _kind(key)
    if not isinstance(digest, _HASHES):
        raise InvalidInput("the request is not signed with SHA-256, SHA-384 or SHA-512", field=_FIELD)
    if not _possession_proven(csr):
        raise InvalidInput("the request's signature is not by the key that it carries", field=_FIELD)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if not _as_sent(csr, spki):
        raise InvalidInput(
            "the key is not written as it would be certified",
            field=_FIELD,
            hint="name the curve, and do not compress the point (RFC 5480 sections 2.1.1 and 2.2)",
        )
    signable = SignableKey(spki, kind)
    known = whose(signable.fingerprint, key)
    if known:
        raise InvalidInput(f"this key is not accepted: {known}", field=_FIELD, hint="make another")
    return signable


def _der_of_pem(raw: bytes) -> bytes:
    match = _PEM.match(raw)
    if match is None:
        raise _malformed("not one PEM block CERTIFICATE REQUEST and nothing else")
    try:
        return binascii.a2b_base64(match[2].replace(b"\r", b"").replace(b"\n", b""), strict_mode=True)
    except binascii.Error as error:
        raise _malformed(f"broken base64: {error}") from None


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        kind = _CURVES.get(key.curve.name)
        if kind is None:
            raise InvalidInput(f"curve {key.curve.name} is not accepted", field=_FIELD, hint=WAY_OUT)
        return kind
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_SIZES:
            raise InvalidInput(
                f"an RSA key of {key.key_size} bits is not accepted",
                field=_FIELD,
                hint=WAY_OUT,
            )
        if key.public_numbers().e != RSA_EXPONENT:
            raise InvalidInput(f"an RSA exponent other than {RSA_EXPONENT} is not accepted", field=_FIELD)
        weak = weakness(key.public_numbers().n)
        if weak:
            raise InvalidInput(f"this RSA key is not accepted: {weak}", field=_FIELD, hint="make another")
        return f"RSA-{key.key_size}"
    raise InvalidInput("this type of key is not accepted", field=_FIELD, hint=WAY_OUT)


def _as_sent(csr: x509.CertificateSigningRequest, spki: bytes) -> bool:
    """Whether the request has the key in these very bytes: explicit curve parameters, for one, are another way."""
    _, info = first(csr.tbs_certrequest_bytes)
    _version, _subject, (_, sent), *_ = elements(info)
    return sent == first(spki)[1]


def _possession_proven(csr: x509.CertificateSigningRequest) -> bool:
    try:
        return csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):  # a signature algorithm that does not fit the key, for one
        return False


def _malformed(why: str) -> InvalidInput:
    return InvalidInput(
        f"not a certificate signing request: {why}",
        field=_FIELD,
        hint="one PKCS #10 request as PEM, such as `openssl req -new` writes",
    )
