"""Who holds a service account token: by the issuer's public keys, or by asking the API server (TokenReview).

Both give the same `ServiceAccountToken`. Neither looks at whether the pod still exists: by keys that cannot be
known, and the API server forgives a deleted pod for a while; the caller asks for the pod itself.
Sources: RFC 7519; Kubernetes "Managing Service
Accounts" (bound tokens: claim `kubernetes.io`), authentication.k8s.io/v1 TokenReview.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import urllib3

from kube.jws import MAX_TOKEN, IssuerKey, Jws, parse_jws, parse_keys
from mesh.errors import Busy, HeddleError, Unauthenticated, Unavailable

LEEWAY = 10  # seconds that a token is taken for after its end
CLOCK_SKEW = 150  # seconds that the issuer's clock may be ahead of ours: a token that was just made is good
CLOCKS = "do the clocks of issuer and ca agree?"
KEYS_RELOAD_INTERVAL = 10.0  # an unknown key id makes us fetch the keys again, at most this often
KEYS_AGE = 60.0  # keys are read again after this long, so that one that is withdrawn counts no longer
KEYS_TIMEOUT = 5.0
MOST_ID = 128  # characters; Kubernetes' are UUIDs
MOST_REVIEWS = 6  # at once


@dataclass(frozen=True, slots=True)
class ServiceAccountToken:
    """What a verified token says. Pod, node and secret are empty when it is not bound to any.

    `id` is the token's own (its `jti`), by which the API server's audit log knows it too; no secret.
    """

    namespace: str
    service_account: str
    service_account_uid: str
    pod_name: str = ""
    pod_uid: str = ""
    node: str = ""
    id: str = ""
    secret: str = ""


class TokenVerifier(Protocol):
    """Raises Unauthenticated for a token that proves nothing, Unavailable when nobody can tell now."""

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        """`token` as sent by the caller; `now` in Unix seconds."""

    def at_once(self, token: str, now: float) -> ServiceAccountToken | None:
        """The same where nobody has to be asked, else None."""


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


def discovered_issuer(get: Callable[[str], object]) -> str:
    """The issuer of the API server's tokens, by its discovery document; Unavailable when that does not say."""
    issuer = _text(_mapping(get("/.well-known/openid-configuration")).get("issuer"))
    if not issuer:
        raise Unavailable("the API server's discovery document names no issuer")
    return issuer


class KeysVerifier:
    """Verifies JWTs by the issuer's keys: the text that `load` returns, read again when a key id is unknown and when
    the keys are old. While they cannot be read, those in hand count on.

    `issuer` is a name, or how to ask for it (with the keys), or None for any.
    """

    def __init__(self, load: Callable[[], str], *, issuer: str | Callable[[], str] | None, audience: str) -> None:
        self._load = load
        self._ask_issuer: Callable[[], str | None] = issuer if callable(issuer) else partial(_same, issuer)
        self._issuer: str | None = None
        self._audience = audience
        self._reloading = threading.Lock()
        self._keys: tuple[IssuerKey, ...] = ()
        self._loaded_at = float("-inf")

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        jws = parse_jws(token)
        known = self._knows_key_of(jws)
        if not known or not self._fresh(now):
            self._reload(now, wait=not known)
        return self._judged(jws, now)

    def at_once(self, token: str, now: float) -> ServiceAccountToken | None:
        """By keys that are at hand and not old."""
        jws = parse_jws(token)
        return self._judged(jws, now) if self._knows_key_of(jws) and self._fresh(now) else None

    def _knows_key_of(self, jws: Jws) -> bool:
        return any(jws.fits(key) for key in self._keys)

    def _fresh(self, now: float) -> bool:
        return abs(now - self._loaded_at) <= KEYS_AGE

    def _judged(self, jws: Jws, now: float) -> ServiceAccountToken:
        claims = jws.claims(self._keys)
        check_claims(claims, self._issuer, self._audience, now)
        return token_from_claims(claims)

    def _reload(self, now: float, *, wait: bool) -> None:
        """With `wait` false, whoever finds another at it goes on with the keys in hand."""
        if not self._reloading.acquire(blocking=wait):
            return
        try:
            if abs(now - self._loaded_at) < KEYS_RELOAD_INTERVAL:
                return
            try:
                self._keys, self._issuer = parse_keys(self._load()), self._ask_issuer()
            except (OSError, HeddleError) as error:
                if not self._keys:
                    raise Unavailable(f"the keys of the token issuer cannot be read: {error}") from None
            finally:
                # Also after a failure with keys in hand: tokens of unknown keys must not make us ask without end.
                self._loaded_at = now if self._keys else float("-inf")
        finally:
            self._reloading.release()


class Slots:
    """At most `most` calls at once. One more waits `patience` seconds for a slot; once that was in vain, others are
    refused at once for `clogged_seconds`, so that a slow server does not take every thread of ours."""

    def __init__(
        self,
        most: int,
        *,
        patience: float = 1.0,
        clogged_seconds: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._free = threading.BoundedSemaphore(most)
        self._patience, self._clogged_seconds = patience, clogged_seconds
        self._monotonic = monotonic
        self._clogged_until = float("-inf")

    def __enter__(self) -> None:
        clogged = self._monotonic() < self._clogged_until
        if self._free.acquire(timeout=0 if clogged else self._patience):
            return
        if not clogged:
            self._clogged_until = self._monotonic() + self._clogged_seconds
        raise Busy(f"the API server is slow: {self._most} calls are on their way already", hint="try again in a moment")

    def __exit__(self, *_error: object) -> None:
        self._free.release()


class ReviewVerifier:
    """Asks the API server. `post(path, body)` sends JSON and returns the decoded answer; it raises Unavailable.

    Answers are not kept: a caller shows its token once in the life of a certificate, so that there is nothing to gain,
    and a token that was revoked meanwhile would still count.
    """

    def __init__(
        self, post: Callable[[str, Mapping[str, object]], object], *, audience: str, slots: Slots | None = None
    ) -> None:
        self._post = post
        self._audience = audience
        self._slots = slots or Slots(MOST_REVIEWS)

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN} bytes")
        try:
            with self._slots:
                answer = self._post("/apis/authentication.k8s.io/v1/tokenreviews", token_review(token, self._audience))
        except (Unavailable, Busy):
            raise
        except HeddleError as error:  # it refuses us, which says nothing about the token
            raise Unavailable(f"the token cannot be reviewed: {error.message}", hint=error.hint) from None
        return token_from_review(answer, self._audience)

    def at_once(self, _token: str, _now: float) -> ServiceAccountToken | None:
        """None: the API server is always asked."""
        return None


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
        # The server's words: `[invalid bearer token, <why>]`, a list of what each of its authenticators said.
        why = _text(status.get("error")).strip("[]").removeprefix("invalid bearer token, ")
        raise Unauthenticated(f"the API server refuses the token: {why or 'not authenticated'}")
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
        id=_first(extra.get("authentication.kubernetes.io/credential-id")).removeprefix("JTI="),
    )


def token_from_claims(claims: Mapping[str, object]) -> ServiceAccountToken:
    """What the claims of a verified token say; Unauthenticated unless it is a bound service account token."""
    namespace, name = _subject(claims.get("sub"))
    private = _mapping(claims.get("kubernetes.io"))
    account, pod, node, secret = (_mapping(private.get(part)) for part in ("serviceaccount", "pod", "node", "secret"))
    if private.get("namespace") != namespace or account.get("name") != name:
        raise Unauthenticated("the token's subject and its kubernetes.io claim disagree, or it is not a bound token")
    return ServiceAccountToken(
        namespace=namespace,
        service_account=name,
        service_account_uid=_text(account.get("uid")),
        pod_name=_text(pod.get("name")),
        pod_uid=_text(pod.get("uid")),
        node=_text(node.get("name")),
        id=_text(claims.get("jti"))[:MOST_ID],
        secret=_text(secret.get("name")),
    )


def check_claims(claims: Mapping[str, object], issuer: str | None, audience: str, now: float) -> None:
    """Unauthenticated unless the registered claims (RFC 7519 section 4.1) say: by `issuer`, for `audience`, now."""
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise Unauthenticated(f"the token is not valid: its audience is not {audience!r}")
    if not isinstance(claims.get("iss"), str) or issuer not in (None, claims["iss"]):
        raise Unauthenticated(f"the token is not valid: its issuer is not {issuer or 'named'}")
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        if value is None and name == "nbf":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unauthenticated(f"the token is not valid: {name} is not a number")
        if name == "exp" and now >= value + LEEWAY:
            raise Unauthenticated(f"the token is not valid: it has expired, {_seconds(now - value)} ago", hint=CLOCKS)
        if name != "exp" and now < value - CLOCK_SKEW:
            raise Unauthenticated(f"the token is not valid yet, but in {_seconds(value - now)}", hint=CLOCKS)


def _seconds(number: float) -> str:
    return f"{number:,.0f} s" if abs(number) < 1e9 else "a lifetime"


def _same(issuer: str | None) -> str | None:
    return issuer


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
