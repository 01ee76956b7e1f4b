"""The signing core: `prepare` says what will be signed, `sign` signs it, once. Pure.

All leaves of one issuer differ in five fields (serial, validity, public key, its identifier, names), so the rest is
encoded once per issuer and a leaf is put together from bytes; the tests compare every field and extension of it with
what the general builder makes. docs/adr/0011-leaf-template.md has the measurements.
Sources: RFC 5280 sections 4.1 and 4.2.1; ITU-T X.690 (DER).
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509

from ca.policy import Grant
from ca.profile import leaf_extensions
from ca.request import SignableKey
from ca.signature import IssuerKey, Scheme, scheme_of
from mesh.errors import InvalidInput

MIN_SERIAL_BITS = 64  # fewer would mean that the random source is not one
MAX_SERIAL_BITS = 159  # RFC 5280 4.1.2.2: at most 20 octets, positive

_INTEGER, _BIT_STRING, _OCTET_STRING, _SEQUENCE = 0x02, 0x03, 0x04, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_TRUE = b"\x01\x01\xff"
_VERSION_3 = b"\xa0\x03\x02\x01\x02"
_EMPTY_NAME = b"\x30\x00"
_OID_SUBJECT_KEY_IDENTIFIER = bytes.fromhex("0603551d0e")
_OID_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")
_SAN_DNS, _SAN_URI = 0x82, 0x86  # GeneralName: context tags, primitive
_YEAR_2050 = 2524608000


@dataclass(frozen=True, slots=True)
class Issuer:
    """What `prepare` needs to know of an issuing certificate, encoded once. Make it by `issuer_of`."""

    certificate: x509.Certificate
    not_before: int
    not_after: int
    scheme: Scheme
    head: bytes = field(repr=False)  # signature algorithm and issuer name
    extensions: bytes = field(repr=False)  # those that every leaf has in common


class Prepared:
    """A leaf that may be signed, once: two certificates with one serial must not exist."""

    __slots__ = ("_tbs", "grant", "scheme", "serial")

    def __init__(self, tbs: bytes, scheme: Scheme, grant: Grant, serial: int) -> None:
        self._tbs: bytes | None = tbs
        self.scheme = scheme
        self.grant = grant
        self.serial = serial

    def take(self) -> bytes:
        """The TBSCertificate; an error the second time."""
        tbs, self._tbs = self._tbs, None
        if tbs is None:
            raise RuntimeError(f"certificate {self.serial:x} has been signed already")
        return tbs


def issuer_of(certificate: x509.Certificate) -> Issuer:
    """The issuer's side of the template; InvalidInput when its key is not one that issuers may have."""
    scheme = scheme_of(certificate.public_key())
    return Issuer(
        certificate=certificate,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        scheme=scheme,
        head=scheme.identifier + certificate.subject.public_bytes(),
        extensions=b"".join(
            _extension(_oid(extension.oid), extension.value.public_bytes(), critical=extension.critical)
            for extension in leaf_extensions(certificate)
        ),
    )


def prepare(issuer: Issuer, grant: Grant, key: SignableKey, serial: int) -> Prepared:
    """The leaf for `grant` and `key`. `serial` is of `ca.serials` (less than 64 significant bits are refused).

    Raises InvalidInput when its life is not within its issuer's: policy must not let that come here.
    """
    if serial < 0 or not MIN_SERIAL_BITS <= serial.bit_length() <= MAX_SERIAL_BITS:
        raise InvalidInput(f"serial {serial:x} is not a random number of {MIN_SERIAL_BITS} to {MAX_SERIAL_BITS} bits")
    if not issuer.not_before <= grant.not_before < grant.not_after <= issuer.not_after:
        raise InvalidInput("the certificate's life would not lie within its issuer's", field="notAfter")
    names = _tlv(_SAN_URI, str(grant.identity).encode("ascii"))
    for name in grant.dns_names:
        names += _tlv(_SAN_DNS, name.encode("ascii"))
    extensions = (
        issuer.extensions
        + _extension(_OID_SUBJECT_KEY_IDENTIFIER, _tlv(_OCTET_STRING, _key_identifier(key.spki)), critical=False)
        # RFC 5280 4.2.1.6: critical, because the subject is empty.
        + _extension(_OID_SUBJECT_ALT_NAME, _tlv(_SEQUENCE, names), critical=True)
    )
    tbs = _tlv(
        _SEQUENCE,
        _VERSION_3
        + _tlv(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
        + issuer.head
        + _tlv(_SEQUENCE, _time(grant.not_before) + _time(grant.not_after))
        + _EMPTY_NAME
        + key.spki
        + _tlv(0xA3, _tlv(_SEQUENCE, extensions)),
    )
    return Prepared(tbs, issuer.scheme, grant, serial)


def sign(issuer_key: IssuerKey, prepared: Prepared) -> bytes:
    """The certificate (DER)."""
    tbs, scheme = prepared.take(), prepared.scheme
    signature = issuer_key.sign(tbs, *scheme.arguments)
    return _tlv(_SEQUENCE, tbs + scheme.identifier + _tlv(_BIT_STRING, b"\x00" + signature))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    if size < 0x100:
        return bytes((tag, 0x81, size)) + content
    if size < 0x10000:
        return bytes((tag, 0x82, size >> 8, size & 0xFF)) + content
    raise InvalidInput("a certificate field of 64 KiB or more")


def _extension(oid: bytes, value: bytes, *, critical: bool) -> bytes:
    return _tlv(_SEQUENCE, oid + (_TRUE if critical else b"") + _tlv(_OCTET_STRING, value))


def _oid(oid: x509.ObjectIdentifier) -> bytes:
    """DER of an identifier below 2.5 (id-ce: 2.5.29.n), all arcs under 128: those of the common extensions."""
    first, second, *rest = (int(arc) for arc in oid.dotted_string.split("."))
    return _tlv(0x06, bytes((first * 40 + second, *rest)))


@lru_cache(maxsize=256)  # the leaves of one second share theirs
def _time(seconds: int) -> bytes:
    """RFC 5280 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on."""
    text = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds))
    if seconds < _YEAR_2050:
        return _tlv(_UTC_TIME, text[2:].encode("ascii"))
    return _tlv(_GENERALIZED_TIME, text.encode("ascii"))


def _key_identifier(spki: bytes) -> bytes:
    """RFC 5280 4.2.1.2 method 1: SHA-1 of the subjectPublicKey's bits. An identifier, no security rests on it."""
    at = _content(spki, 0)  # the SEQUENCE
    algorithm = _content(spki, at)
    bits = _content(spki, algorithm + _length(spki, at))
    return hashlib.sha1(spki[bits + 1 :], usedforsecurity=False).digest()  # after the count of unused bits


def _content(der: bytes, at: int) -> int:
    """Where the content of the element at `at` begins. `der` is OpenSSL's own output."""
    first = der[at + 1]
    return at + 2 + (first & 0x7F if first & 0x80 else 0)


def _length(der: bytes, at: int) -> int:
    first = der[at + 1]
    return int.from_bytes(der[at + 2 : at + 2 + (first & 0x7F)], "big") if first & 0x80 else first
