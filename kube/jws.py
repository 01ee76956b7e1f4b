"""Compact JSON Web Signatures by known keys: read strictly, verified by `cryptography`.

PyJWT reads the keys here; it does not read the tokens, because its checks of them cost more than the signature
(docs/adr/0014-tokens.md).
Sources: RFC 7515 (sections 3.1, 4.1.11, 5.2), RFC 7517, RFC 7518 (sections 3.3, 3.4), RFC 8725 (section 3.1).
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from mesh.errors import InvalidInput, Unauthenticated

MAX_TOKEN = 16 * 1024

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\Z")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384"}
_RSA = ("RS256", "RS384", "RS512")
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key, and the one algorithm that signatures by it may use: never what the token says."""

    key: PublicKey
    algorithm: str
    key_id: str = ""

    def accepts(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` (as JWS has it) is by this key over `signed`."""
        digest = _HASHES[self.algorithm[2:]]
        try:
            if isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, signed, padding.PKCS1v15(), digest)
            else:
                half = (self.key.key_size + 7) // 8
                if len(signature) != 2 * half:
                    return False
                r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
                self.key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Jws:
    """A token taken apart; nothing in it has been verified."""

    algorithm: str
    key_id: str
    signed: bytes
    signature: bytes
    payload: bytes

    def claims(self, keys: Iterable[IssuerKey]) -> Mapping[str, Any]:
        """The claims, verified by one of `keys` that fits the header; Unauthenticated otherwise."""
        fitting = [key for key in keys if self.fits(key)]
        if not fitting:
            raise Unauthenticated("the token is not valid: no key of the issuer has its key id and algorithm")
        if not any(key.accepts(self.signed, self.signature) for key in fitting):
            raise Unauthenticated("the token is not valid: the signature is not the issuer's")
        return _object(self.payload)

    def fits(self, key: IssuerKey) -> bool:
        """Whether this key may be the one that the header means."""
        return key.algorithm == self.algorithm and (not key.key_id or not self.key_id or key.key_id == self.key_id)


def parse_jws(token: str) -> Jws:
    """Take a compact JWS apart; Unauthenticated when it is not one, or asks for an extension."""
    if len(token) > MAX_TOKEN:
        raise Unauthenticated(f"the token is longer than {MAX_TOKEN} bytes")
    if _COMPACT.match(token) is None:
        raise Unauthenticated("the token is not a JSON Web Token")
    head, payload, signature = token.encode("ascii").split(b".")
    header = _object(_decoded(head))
    if "crit" in header or header.get("b64", True) is not True:
        raise Unauthenticated("the token is not valid: its header asks for extensions")
    algorithm, key_id = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or not isinstance(key_id, str):
        raise Unauthenticated("the token is not valid: its header names no algorithm")
    return Jws(algorithm, key_id, head + b"." + payload, _decoded(signature), _decoded(payload))


def parse_keys(text: str) -> tuple[IssuerKey, ...]:
    """The keys in a JWKS (RFC 7517) or in PEM public keys; InvalidInput when there is none, or a weak one."""
    keys = _from_jwks(text) if text.lstrip().startswith("{") else _from_pem(text)
    if not keys:
        raise InvalidInput("no key that can verify a token", hint="expected a JWKS or PEM public keys, RSA or EC")
    return tuple(keys)


def _from_jwks(text: str) -> list[IssuerKey]:
    try:
        listed = json.loads(text).get("keys")
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}") from None
    keys = []
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC"):
            continue
        try:
            key = jwt.PyJWK({**entry, "alg": entry.get("alg") or _any_algorithm(entry)}).key
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidInput(f"a key of the JWKS cannot be read: {error}") from None
        keys.append(_issuer_key(key, str(entry.get("kid") or ""), str(entry.get("alg") or "")))
    return keys


def _any_algorithm(entry: Mapping[str, object]) -> str:
    """PyJWT wants one to read the key; which algorithm it may be used with is decided by `_issuer_key`."""
    return "RS256" if entry.get("kty") == "RSA" else {"P-384": "ES384"}.get(str(entry.get("crv")), "ES256")


def _from_pem(text: str) -> list[IssuerKey]:
    end = "-----END PUBLIC KEY-----"
    keys = []
    for block in text.split(end)[:-1]:
        try:
            key = serialization.load_pem_public_key((block.strip() + f"\n{end}\n").encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInput(f"a PEM public key cannot be read: {error}") from None
        keys.append(_issuer_key(key, "", ""))
    return keys


def _issuer_key(key: object, key_id: str, algorithm: str) -> IssuerKey:
    allowed: tuple[str, ...] = ()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        allowed = _RSA
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        allowed = (_CURVES[key.curve.name],)
    if isinstance(key, PublicKey) and allowed and (not algorithm or algorithm in allowed):
        return IssuerKey(key, algorithm or allowed[0], key_id)
    raise InvalidInput(
        f"key {key_id or '(unnamed)'} of the token issuer is of a kind that is not accepted",
        hint="RSA of 2048 bits or more, or EC on P-256 or P-384, with an algorithm that fits",
    )


def _decoded(part: bytes) -> bytes:
    try:
        return binascii.a2b_base64(part.translate(_URL_SAFE) + b"=" * (-len(part) % 4), strict_mode=True)
    except binascii.Error:
        raise Unauthenticated("the token is not a JSON Web Token: broken base64") from None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise Unauthenticated("the token is not a JSON Web Token: not a JSON object")
    return value
