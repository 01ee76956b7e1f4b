"""Who holds a service account token: by the issuer's public keys, or by asking the API server (TokenReview).

Both give the same `ServiceAccountToken`. Neither looks at whether the pod still exists: by keys that cannot be
known, and the API server forgives a deleted pod for a while; the caller asks for the pod itself.
Sources: RFC 7515, 7517, 7519, 8725 (algorithms by key, never by the token's word); Kubernetes "Managing Service
Accounts" (bound tokens: claim `kubernetes.io`), authentication.k8s.io/v1 TokenReview.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import jwt
import urllib3
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mesh.errors import HeddleError, InvalidInput, Unauthenticated, Unavailable

MAX_TOKEN = 16 * 1024
LEEWAY = 10  # seconds of disagreement between the issuer's clock and ours
KEYS_RELOAD_INTERVAL = 10.0  # an unknown key id makes us fetch the keys again, at most this often
KEYS_TIMEOUT = 5.0
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class ServiceAccountToken:
    """What a verified token says. Pod and node are empty when it is not bound to any."""

    namespace: str
    service_account: str
    service_account_uid: str
    pod_name: str = ""
    pod_uid: str = ""
    node: str = ""


class TokenVerifier(Protocol):
    """Raises Unauthenticated for a token that proves nothing, Unavailable when nobody can tell now."""

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        """`token` as sent by the caller; `now` in Unix seconds."""


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key, and the one algorithm that signatures by it may use (RFC 8725 section 3.1)."""

    key: PublicKey
    algorithm: str
    key_id: str = ""


def parse_keys(text: str) -> tuple[IssuerKey, ...]:
    """The keys in a JWKS (RFC 7517) or in PEM public keys; InvalidInput when there is none, or a weak one."""
    keys = _from_jwks(text) if text.lstrip().startswith("{") else _from_pem(text)
    if not keys:
        raise InvalidInput("no key that can verify a token", hint="expected a JWKS or PEM public keys, RSA or EC")
    return tuple(keys)


def read_keys(where: str, get: Callable[[str], object]) -> str:
    """The text of the issuer's keys: of a file, of a URL, or, for `api`, what `get` reads from the API server."""
    if where == "api":
        return json.dumps(get("/openid/v1/jwks"))
    if where.startswith(("http://", "https://")):
        try:
            answer = urllib3.request("GET", where, timeout=KEYS_TIMEOUT, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"{where} does not answer: {error}") from None
        if answer.status != 200:
            raise Unavailable(f"{where} answered {answer.status}")
        return answer.data.decode("utf-8", "replace")
    return Path(where).read_text()


class KeysVerifier:
    """Verifies JWTs by the issuer's keys: the text that `load` returns, read again when a key id is unknown."""

    def __init__(self, load: Callable[[], str], *, issuer: str | None, audience: str) -> None:
        self._load = load
        self._issuer = issuer
        self._audience = audience
        self._reloading = threading.Lock()
        self._keys: tuple[IssuerKey, ...] = ()
        self._loaded_at = float("-inf")

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN} bytes")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"not a JSON Web Token: {error}") from None
        problem = "no key of the issuer has this key id and algorithm"
        for candidate in self._candidates(header, now):
            try:
                claims = self._decode(token, candidate, now)
            except jwt.InvalidSignatureError:
                problem = "the signature is not the issuer's"
                continue
            except jwt.PyJWTError as error:
                raise Unauthenticated(f"the token is not valid: {error}") from None
            return token_from_claims(claims)
        raise Unauthenticated(f"the token is not valid: {problem}")

    def _decode(self, token: str, candidate: IssuerKey, now: float) -> Mapping[str, object]:
        claims: dict[str, object] = jwt.decode(
            token,
            candidate.key,
            algorithms=[candidate.algorithm],
            audience=self._audience,
            issuer=self._issuer,
            # Times are checked below by the caller's clock: PyJWT reads the system's.
            options={
                "require": ["exp", "iat", "aud", "iss", "sub"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        _check_times(claims, now)
        return claims

    def _candidates(self, header: Mapping[str, object], now: float) -> list[IssuerKey]:
        found = self._matching(header)
        if not found:
            self._reload(now)
            found = self._matching(header)
        return found

    def _matching(self, header: Mapping[str, object]) -> list[IssuerKey]:
        key_id, algorithm = header.get("kid"), header.get("alg")
        return [
            key
            for key in self._keys
            if key.algorithm == algorithm and (not key.key_id or not key_id or key.key_id == key_id)
        ]

    def _reload(self, now: float) -> None:
        with self._reloading:
            if abs(now - self._loaded_at) < KEYS_RELOAD_INTERVAL:
                return
            try:
                self._keys = parse_keys(self._load())
            except (OSError, HeddleError) as error:
                if not self._keys:
                    raise Unavailable(f"the keys of the token issuer cannot be read: {error}") from None
                return
            finally:
                # Also after a failure with keys in hand: tokens of unknown keys must not make us ask without end.
                self._loaded_at = now if self._keys else float("-inf")


class ReviewVerifier:
    """Asks the API server. `post(path, body)` sends JSON and returns the decoded answer; it raises Unavailable."""

    def __init__(self, post: Callable[[str, Mapping[str, object]], object], *, audience: str) -> None:
        self._post = post
        self._audience = audience

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN} bytes")
        answer = self._post("/apis/authentication.k8s.io/v1/tokenreviews", token_review(token, self._audience))
        return token_from_review(answer, self._audience)


def token_review(token: str, audience: str) -> dict[str, object]:
    """The TokenReview to post."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }


def token_from_review(answer: object, audience: str) -> ServiceAccountToken:
    """What the API server's TokenReview says; Unauthenticated when it says no."""
    status = _mapping(_mapping(answer).get("status"))
    if status.get("authenticated") is not True:
        raise Unauthenticated(f"the API server refuses the token: {status.get('error') or 'not authenticated'}")
    # A server that knows no audiences leaves the field out, and then it has not checked ours (TokenReviewStatus).
    audiences = status.get("audiences")
    if not isinstance(audiences, list) or audience not in audiences:
        raise Unauthenticated(f"the token is not for the audience {audience!r}")
    user = _mapping(status.get("user"))
    namespace, name = _subject(user.get("username"))
    extra = _mapping(user.get("extra"))
    return ServiceAccountToken(
        namespace=namespace,
        service_account=name,
        service_account_uid=_text(user.get("uid")),
        pod_name=_first(extra.get("authentication.kubernetes.io/pod-name")),
        pod_uid=_first(extra.get("authentication.kubernetes.io/pod-uid")),
        node=_first(extra.get("authentication.kubernetes.io/node-name")),
    )


def token_from_claims(claims: Mapping[str, object]) -> ServiceAccountToken:
    """What the claims of a verified token say; Unauthenticated unless it is a bound service account token."""
    namespace, name = _subject(claims.get("sub"))
    private = _mapping(claims.get("kubernetes.io"))
    account, pod, node = (_mapping(private.get(part)) for part in ("serviceaccount", "pod", "node"))
    if private.get("namespace") != namespace or account.get("name") != name:
        raise Unauthenticated("the token's subject and its kubernetes.io claim disagree, or it is not a bound token")
    return ServiceAccountToken(
        namespace=namespace,
        service_account=name,
        service_account_uid=_text(account.get("uid")),
        pod_name=_text(pod.get("name")),
        pod_uid=_text(pod.get("uid")),
        node=_text(node.get("name")),
    )


def _check_times(claims: Mapping[str, object], now: float) -> None:
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        if value is None and name == "nbf":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unauthenticated(f"the token is not valid: {name} is not a number")
        if name == "exp" and now >= value + LEEWAY:
            raise Unauthenticated("the token is not valid: it has expired")
        if name != "exp" and now < value - LEEWAY:
            raise Unauthenticated("the token is not valid yet", hint="do the clocks of issuer and ca agree?")


def _from_jwks(text: str) -> list[IssuerKey]:
    try:
        listed = _mapping(json.loads(text)).get("keys")
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}") from None
    keys = []
    for entry in listed if isinstance(listed, list) else []:
        entry = _mapping(entry)
        if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC"):
            continue
        try:
            key = jwt.PyJWK(dict(entry)).key
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidInput(f"a key of the JWKS cannot be read: {error}") from None
        keys.append(_issuer_key(key, _text(entry.get("kid")), _text(entry.get("alg"))))
    return keys


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
        allowed = ("RS256", "RS384", "RS512")
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        allowed = (_CURVES[key.curve.name],)
    if isinstance(key, PublicKey) and allowed and (not algorithm or algorithm in allowed):
        return IssuerKey(key, algorithm or allowed[0], key_id)
    raise InvalidInput(
        f"key {key_id or '(unnamed)'} of the token issuer is of a kind that is not accepted",
        hint="RSA of 2048 bits or more, or EC on P-256 or P-384, with an algorithm that fits",
    )


def _subject(subject: object) -> tuple[str, str]:
    parts = subject.split(":") if isinstance(subject, str) else []
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"] or not parts[2] or not parts[3]:
        raise Unauthenticated(f"{subject!r} is not a service account")
    return parts[2], parts[3]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _first(value: object) -> str:
    return _text(value[0]) if isinstance(value, list) and value else ""
