"""Service account tokens of the embedded engine: signed JWTs with the claims that Kubernetes' bound tokens have.

Source: Kubernetes, "Bound service account tokens": audience-bound, expiring, `kubernetes.io` claim with namespace, pod
and service account. The key lives in the engine's memory; readers get the public half as a JWKS (`/openid/v1/jwks`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from local.store import Store
from mesh.errors import Unauthenticated
from mesh.objects import Key

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEY_ID = "local-1"
LEEWAY_SECONDS = 60
"""So far the clock may be set back before a token counts as one of the future."""


class TokenIssuer:
    """Signs with ES256 by `key` (P-256)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def token(
        self,
        *,
        namespace: str,
        service_account: str,
        service_account_uid: str,
        audience: str,
        now: float,
        seconds: float,
        token_id: str,
        pod: tuple[str, str] | None = None,
    ) -> str:
        """A token for the service account, bound to `pod` (name, uid) where given. `now`: POSIX seconds."""
        bound: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": service_account, "uid": service_account_uid},
        }
        if pod is not None:
            bound["pod"] = {"name": pod[0], "uid": pod[1]}
        claims = {
            "iss": ISSUER,
            "aud": [audience],
            "sub": f"system:serviceaccount:{namespace}:{service_account}",
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + seconds),
            "jti": token_id,
            "kubernetes.io": bound,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": KEY_ID})

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "ES256"}]}

    def claims(self, token: str, audiences: Sequence[str], now: float) -> dict[str, Any]:
        """The claims of a token of ours for one of `audiences` that holds at `now`; Unauthenticated otherwise."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["ES256"],
                audience=list(audiences),
                issuer=ISSUER,
                options={
                    "require": ["exp", "iat", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.InvalidTokenError, ValueError) as error:  # ValueError: text that is not even ASCII
            raise Unauthenticated(f"the token is not valid: {error}") from error
        if not claims["iat"] - LEEWAY_SECONDS <= now < claims["exp"]:
            raise Unauthenticated("the token has expired or is not valid yet")
        return claims


def reviewer(issuer: TokenIssuer, store: Store, now: Callable[[], float]) -> Callable[[str, list[str]], dict[str, Any]]:
    """What answers a TokenReview: the token holds, and the service account and pod it is bound to are still there."""

    def review(token: str, audiences: list[str]) -> dict[str, Any]:
        claims = issuer.claims(token, audiences or [ISSUER], now())
        bound = claims["kubernetes.io"]
        namespace, account, pod = bound["namespace"], bound["serviceaccount"], bound.get("pod")
        extra = {}
        for kind, reference in (("ServiceAccount", account), ("Pod", pod)):
            if reference is None:
                continue
            raw = store.get(kind, Key(namespace, reference["name"]))
            if raw is None or raw["metadata"]["uid"] != reference["uid"]:
                raise Unauthenticated(f"the {kind} that the token is bound to no longer exists")
        if pod is not None:
            extra = {
                "authentication.kubernetes.io/pod-name": [pod["name"]],
                "authentication.kubernetes.io/pod-uid": [pod["uid"]],
            }
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        user = {"username": claims["sub"], "uid": account["uid"], "groups": groups, "extra": extra}
        return {"authenticated": True, "user": user, "audiences": claims["aud"]}

    return review
