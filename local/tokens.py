"""Service account tokens of the embedded engine: signed JWTs with the claims that Kubernetes' bound tokens have.

Source: Kubernetes, "Bound service account tokens": audience-bound, expiring, `kubernetes.io` claim with namespace, pod
and service account. The key lives in the engine's memory; readers get the public half as a JWKS (`/openid/v1/jwks`).
"""

from __future__ import annotations

import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEY_ID = "local-1"


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

    def public_pem(self) -> str:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
