"""Whose X509-SVID a certificate is, for a peer whose chain TLS has verified already.

The chain is OpenSSL's part (strict RFC 5280). What X509-SVID asks beyond it is looked at here, in the certificate's own
bytes: `ssl` shows no key usage, and `cryptography` costs the agent 8 MB (docs/adr/0060).
Sources: SPIFFE X509-SVID sections 2, 3.1, 4 and 5.2; RFC 5280 sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.errors import HeddleError, Unauthenticated
from mesh.identity import Identity, parse_identity
from svid.der import elements, first

_KEY_USAGE = bytes.fromhex("551d0f")
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
_BASIC_CONSTRAINTS = bytes.fromhex("551d13")
_EXTENDED_KEY_USAGE = bytes.fromhex("551d25")
_SERVER_AUTH, _CLIENT_AUTH = bytes.fromhex("2b06010505070301"), bytes.fromhex("2b06010505070302")
# KeyUsage is a string of bits, the first one the highest (RFC 5280 4.2.1.3).
_DIGITAL_SIGNATURE, _KEY_CERT_SIGN, _CRL_SIGN = 0x80, 0x04, 0x02

_BOOLEAN, _SEQUENCE = 0x01, 0x30
_EXTENSIONS = 0xA3  # [3] of a TBSCertificate
_VERSION = 0xA0
_URI = 0x86  # [6] of a GeneralName
_SUBJECT_AT = 4  # in a TBSCertificate, without its version


@dataclass(frozen=True, slots=True)
class _Extension:
    critical: bool
    value: bytes  # what is in the OCTET STRING


def leaf_identity(der: bytes, whose: str = "the peer's certificate") -> Identity:
    """The one workload that the certificate `der` names; Unauthenticated when it is not a leaf X509-SVID.

    `whose` is what the error calls it.
    """
    try:
        subject, extensions = _read(der)
        fault = _fault(subject, extensions)
        uris = [content.decode("ascii") for tag, content in _names(extensions) if tag == _URI]
    except (ValueError, IndexError):
        raise Unauthenticated(f"{whose} cannot be read") from None
    if fault:
        raise Unauthenticated(f"{whose} is no X509-SVID: {fault}")
    if len(uris) != 1:
        raise Unauthenticated(f"an X509-SVID has exactly one URI, {whose} has {len(uris)}")
    try:
        return parse_identity(uris[0])
    except HeddleError as error:
        raise Unauthenticated(f"{whose} names no workload: {error}") from None


def _fault(subject: bytes, extensions: dict[bytes, _Extension]) -> str:
    """What X509-SVID forbids in it, apart from its name; "" when nothing."""
    if _is_authority(extensions.get(_BASIC_CONSTRAINTS)):
        return "a signing certificate identifies nobody"
    usage = extensions.get(_KEY_USAGE)
    if usage is None:
        return "it has no key usage"
    bits = _key_usage(usage.value)
    if bits & (_KEY_CERT_SIGN | _CRL_SIGN):
        return "its key may sign certificates or revocation lists"
    if not bits & _DIGITAL_SIGNATURE or not usage.critical:
        return "its key usage is not critical, or without digitalSignature"
    purposes = extensions.get(_EXTENDED_KEY_USAGE)
    if purposes and not {_SERVER_AUTH, _CLIENT_AUTH} <= {content for _, content in _inside(purposes.value)}:
        return "its extended key usage is not for servers and clients both"
    names = extensions.get(_SUBJECT_ALT_NAME)
    if names and not subject and not names.critical:
        return "its subject is empty, and its names are not critical"
    return ""


def _read(der: bytes) -> tuple[bytes, dict[bytes, _Extension]]:
    """The content of the subject, and the extensions by their OID (the content of its encoding)."""
    _, certificate = first(der)
    _, tbs = first(certificate)
    fields = [(tag, content) for tag, content in elements(tbs) if tag != _VERSION]
    extensions: dict[bytes, _Extension] = {}
    for tag, content in fields:
        if tag != _EXTENSIONS:
            continue
        for _, extension in _inside(content):
            (_, oid), *parts = elements(extension)
            if oid in extensions:
                raise ValueError("an extension that is there twice")  # RFC 5280 section 4.2
            critical = parts[0][0] == _BOOLEAN and parts[0][1] != b"\x00"
            extensions[oid] = _Extension(critical, parts[-1][1])
    return fields[_SUBJECT_AT][1], extensions


def _names(extensions: dict[bytes, _Extension]) -> Iterator[tuple[int, bytes]]:
    names = extensions.get(_SUBJECT_ALT_NAME)
    return _inside(names.value) if names else iter(())


def _is_authority(constraints: _Extension | None) -> bool:
    return constraints is not None and any(
        tag == _BOOLEAN and content != b"\x00" for tag, content in _inside(constraints.value)
    )


def _key_usage(value: bytes) -> int:
    """The first eight bits; the ninth, decipherOnly, means nothing here."""
    _, content = first(value)
    return content[1] if len(content) > 1 else 0


def _inside(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of the one SEQUENCE in `der`."""
    tag, content = first(der)
    if tag != _SEQUENCE:
        raise ValueError("not a SEQUENCE")
    return elements(content)
