"""A trust domain's roots as a SPIFFE bundle: a JWK set that any SPIFFE implementation reads, both ways.

Sources: SPIFFE Trust Domain and Bundle section 4, X509-SVID section 6, RFC 7517 and 7518 (JWK parameters).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mesh.errors import InvalidInput
from mesh.identity import check_trust_domain
from svid.material import TrustBundle

USE = "x509-svid"
MAX_ROOTS = 64
MAX_INTEGER = (1 << 63) - 1
_CURVES = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48), "secp521r1": ("P-521", 66)}


@dataclass(frozen=True, slots=True)
class SpiffeBundle:
    """What a bundle says. The name of its trust domain is not in it: whoever fetched it knows whose it is.

    `roots` are PEM, one certificate each. `refresh_hint` is in seconds. What the publisher left out is None.
    """

    trust_domain: str
    roots: tuple[str, ...]
    sequence: int | None
    refresh_hint: int | None


def spiffe_bundle_json(bundle: TrustBundle, refresh_hint: int) -> dict[str, Any]:
    """`bundle` as a JWK set, for JSON. `refresh_hint`: after how many seconds a consumer should ask again."""
    return {
        "keys": [_jwk(x509.load_pem_x509_certificate(root.encode())) for root in bundle.roots],
        "spiffe_sequence": bundle.sequence,
        "spiffe_refresh_hint": refresh_hint,
    }


def parse_spiffe_bundle(text: str | bytes, trust_domain: str) -> SpiffeBundle:
    """The bundle of `trust_domain` in `text`; InvalidInput when there is none that can be used.

    As the standard asks, keys of an unknown type or use are passed over, and so are those without a certificate.
    """
    check_trust_domain(trust_domain)
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(trust_domain, f"it is not JSON: {error}") from None
    keys = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(keys, list):
        raise _unusable(trust_domain, "it is not a JWK set: it has no list `keys`")
    ours = [key for key in keys if isinstance(key, dict) and key.get("use") == USE and key.get("kty") in ("EC", "RSA")]
    roots = tuple(dict.fromkeys(_root(key, trust_domain) for key in ours if _has_certificate(key)))
    if not 0 < len(roots) <= MAX_ROOTS:
        raise _unusable(trust_domain, f"it has {len(roots)} certificates of use {USE}, and 1 to {MAX_ROOTS} are usable")
    return SpiffeBundle(
        trust_domain,
        roots,
        _integer(body.get("spiffe_sequence"), "spiffe_sequence", trust_domain),
        _integer(body.get("spiffe_refresh_hint"), "spiffe_refresh_hint", trust_domain),
    )


def _jwk(certificate: x509.Certificate) -> dict[str, Any]:
    encoded = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    parameters = _parameters(certificate.public_key())
    if parameters is None:
        raise InvalidInput("a root's key is neither RSA nor P-256, P-384 or P-521")
    return {"use": USE, **parameters, "x5c": [encoded]}


def _parameters(key: object) -> dict[str, str] | None:
    """The public key as RFC 7518 section 6 writes it; None for a type that bundles do not have."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        curve, size = _CURVES[key.curve.name]
        point = key.public_numbers()
        return {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
    return None


def _number(value: int, size: int = 0) -> str:
    octets = value.to_bytes(size or (value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _has_certificate(key: Mapping[str, Any]) -> bool:
    chain = key.get("x5c")
    return isinstance(chain, list) and bool(chain)


def _root(key: Mapping[str, Any], trust_domain: str) -> str:
    """The first certificate of a key, as PEM; the others are to be ignored (X509-SVID section 6.2)."""
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(key["x5c"][0], validate=True))
        parameters = _parameters(certificate.public_key())
    except (TypeError, ValueError, binascii.Error) as error:
        raise _unusable(trust_domain, f"one of its certificates cannot be read: {error}") from None
    # RFC 7517 section 4.7: the certificate's key is the one that the other parameters describe.
    if parameters is None or any(key.get(name) != value for name, value in parameters.items()):
        raise _unusable(trust_domain, "the key beside one of its certificates is another one")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise _unusable(trust_domain, f"{certificate.subject.rfc4514_string()} is not a certificate authority's")
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _integer(value: object, name: str, trust_domain: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise _unusable(trust_domain, f"{name} is {value!r}, and not a whole number of at most 63 bits")
    return value


def _unusable(trust_domain: str, why: str) -> InvalidInput:
    return InvalidInput(f"the SPIFFE bundle of {trust_domain} cannot be used: {why}", hint="is it a bundle endpoint?")
