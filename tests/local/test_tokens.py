"""Service account tokens: the claims that Kubernetes' have, and what does not count."""

from __future__ import annotations

import itertools

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from local.store import Store
from local.tokens import ISSUER, LEEWAY_SECONDS, TokenIssuer, reviewer
from mesh.errors import Unauthenticated
from mesh.objects import Key

NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER_HERE = TokenIssuer(KEY)


def token(
    issuer: TokenIssuer = ISSUER_HERE, *, pod: tuple[str, str] | None = ("p", "pod-uid"), seconds: float = 600
) -> str:
    return issuer.token(
        namespace="n",
        service_account="sa",
        service_account_uid="sa-uid",
        audience="istio-ca",
        now=NOW,
        seconds=seconds,
        token_id="id",
        pod=pod,
    )


def test_claims_are_those_of_a_bound_token() -> None:
    claims = ISSUER_HERE.claims(token(), ["istio-ca"], NOW)
    assert claims["sub"] == "system:serviceaccount:n:sa"
    assert claims["iss"] == ISSUER
    assert claims["aud"] == ["istio-ca"]
    assert claims["exp"] - claims["iat"] == 600
    assert claims["kubernetes.io"] == {
        "namespace": "n",
        "serviceaccount": {"name": "sa", "uid": "sa-uid"},
        "pod": {"name": "p", "uid": "pod-uid"},
    }


def test_another_verifier_accepts_it_by_the_published_key() -> None:
    (key,) = ISSUER_HERE.jwks()["keys"]
    assert "d" not in key
    held = token()
    assert jwt.get_unverified_header(held)["kid"] == key["kid"]
    options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    jwt.decode(held, jwt.PyJWK(key).key, algorithms=["ES256"], audience="istio-ca", options=options)


@pytest.mark.parametrize("now", [NOW, NOW + 599.9, NOW - LEEWAY_SECONDS])
def test_it_holds_until_it_expires_and_when_the_clock_is_set_back_a_little(now: float) -> None:
    ISSUER_HERE.claims(token(), ["other", "istio-ca"], now)


@pytest.mark.parametrize("now", [NOW + 600, NOW + 1e9, NOW - LEEWAY_SECONDS - 1])
def test_it_does_not_hold_at_other_times(now: float) -> None:
    with pytest.raises(Unauthenticated, match="expired or is not valid yet"):
        ISSUER_HERE.claims(token(), ["istio-ca"], now)


def test_other_keys_audiences_and_algorithms_do_not_count() -> None:
    other = TokenIssuer(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(Unauthenticated):
        ISSUER_HERE.claims(token(other), ["istio-ca"], NOW)
    with pytest.raises(Unauthenticated):
        ISSUER_HERE.claims(token(), ["vault"], NOW)
    claims = ISSUER_HERE.claims(token(), ["istio-ca"], NOW)
    for forged in (jwt.encode(claims, None, algorithm="none"), jwt.encode(claims, "x" * 32, algorithm="HS256")):
        with pytest.raises(Unauthenticated):
            ISSUER_HERE.claims(forged, ["istio-ca"], NOW)


@given(st.text())
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    with pytest.raises(Unauthenticated):
        ISSUER_HERE.claims(text, ["istio-ca"], NOW)


def test_text_that_is_no_unicode_is_no_token() -> None:
    with pytest.raises(Unauthenticated):
        ISSUER_HERE.claims("\ud800", ["istio-ca"], NOW)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_token_is_no_token(position: int, letter: int) -> None:
    held = token()
    head, _, signature = held.rpartition(".")
    changed = head[: position % len(head)] + chr(letter) + head[position % len(head) + 1 :] + "." + signature
    if changed != held:
        with pytest.raises(Unauthenticated):
            ISSUER_HERE.claims(changed, ["istio-ca"], NOW)


class World:
    def __init__(self) -> None:
        numbers = itertools.count()
        self.store = Store(uid=lambda: f"made-{next(numbers)}", now=lambda: "2026-01-01T00:00:00Z")
        self.put("ServiceAccount", "sa", "sa-uid")
        self.put("Pod", "p", "pod-uid")
        self.review = reviewer(ISSUER_HERE, self.store, lambda: NOW)

    def put(self, kind: str, name: str, uid: str) -> None:
        self.store.delete(kind, Key("n", name))
        meta = {"namespace": "n", "name": name, "uid": uid}
        self.store.put({"apiVersion": "v1", "kind": kind, "metadata": meta})


def test_a_review_says_who_it_is() -> None:
    status = World().review(token(), ["istio-ca"])
    assert status["authenticated"] is True
    assert status["audiences"] == ["istio-ca"]
    assert status["user"] == {
        "username": "system:serviceaccount:n:sa",
        "uid": "sa-uid",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/pod-name": ["p"],
            "authentication.kubernetes.io/pod-uid": ["pod-uid"],
        },
    }


@pytest.mark.parametrize(("kind", "name"), [("Pod", "p"), ("ServiceAccount", "sa")])
def test_a_token_ends_with_what_it_is_bound_to(kind: str, name: str) -> None:
    world = World()
    world.store.delete(kind, Key("n", name))
    with pytest.raises(Unauthenticated, match=f"the {kind} that the token is bound to no longer exists"):
        world.review(token(), ["istio-ca"])
    world.put(kind, name, "another")
    with pytest.raises(Unauthenticated, match=kind):
        world.review(token(), ["istio-ca"])


def test_a_token_without_a_pod_needs_none() -> None:
    world = World()
    world.store.delete("Pod", Key("n", "p"))
    assert world.review(token(pod=None), ["istio-ca"])["user"]["extra"] == {}
