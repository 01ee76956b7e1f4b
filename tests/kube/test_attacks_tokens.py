"""Tokens that say what they should not be believed: keys that they bring themselves, signatures that are none, claims
of another type than they look. What signs is the issuer's own key wherever the test does not say otherwise."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kube.tokens import KeysVerifier
from mesh.errors import Unauthenticated
from svid.material import PodRef
from tests.ca.harness import ISSUER, TokenMint

NOW = 1_800_000_000
MINT, STRANGER = TokenMint(), TokenMint()
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256, FIPS 186-4 D.1.2.3
CLAIMS = MINT.claims("default", "reviews", PodRef("default", "reviews-1", "uid-1"), iat=NOW, nbf=NOW, exp=NOW + 3600)
GOOD_HEADER = {"alg": "ES256", "kid": "k1"}
VERIFIER = KeysVerifier(lambda: json.dumps(MINT.jwks()), issuer=ISSUER, audience="istio-ca")


def part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: str | bytes, claims: str | bytes, mint: TokenMint = MINT) -> str:
    """A token with these texts, signed by `mint`."""
    head, body = (text.encode() if isinstance(text, str) else text for text in (header, claims))
    text = f"{part(head)}.{part(body)}"
    r, s = decode_dss_signature(mint.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def header(**change: Any) -> str:
    return json.dumps(GOOD_HEADER | change)


def claims(**change: Any) -> str:
    return json.dumps(CLAIMS | change)


def test_made_by_hand_is_no_reason() -> None:
    found = VERIFIER.verify(signed(header(), claims()), NOW)
    assert (found.namespace, found.service_account, found.pod_uid) == ("default", "reviews", "uid-1")


JWK = STRANGER.jwks()["keys"][0]
# By another's key, which the header brings along or says where to find (RFC 7515 4.1.2 to 4.1.6; CVE-2018-0114).
BROUGHT: dict[str, dict[str, Any]] = {
    "jwk": {"jwk": JWK},
    "jwk-and-no-kid": {"jwk": JWK, "kid": ""},
    "jku": {"jku": "https://attacker.example/jwks"},
    "x5u": {"x5u": "https://attacker.example/certificate"},
    "x5c": {"x5c": ["MIIB"]},
    "kid-of-a-file": {"kid": "../../../../dev/null"},
    "kid-of-a-query": {"kid": "k1' OR '1'='1"},
    "kid-with-a-nul": {"kid": "k1\0"},
}


@pytest.mark.parametrize("name", BROUGHT)
def test_a_token_does_not_say_which_key_verifies_it(name: str) -> None:
    with pytest.raises(Unauthenticated, match=r"no key of the issuer|signature is not the issuer's"):
        VERIFIER.verify(signed(header(**BROUGHT[name]), claims(), STRANGER), NOW)


def half(number: int) -> bytes:
    return number.to_bytes(32, "big")


# CVE-2022-21449 and its like: numbers for which sloppy arithmetic says yes to everything.
NO_SIGNATURES = {
    "zeros": bytes(64),
    "r-zero": half(0) + half(1),
    "s-zero": half(1) + half(0),
    "r-the-order": half(ORDER) + half(1),
    "both-the-order": half(ORDER) * 2,
    "beyond-the-order": half(ORDER + 1) + half(1),
    "largest": b"\xff" * 64,
    "cut": bytes(63),
    "long": bytes(65),
    "der-where-jws-wants-numbers": MINT.key.sign(b"x", ec.ECDSA(hashes.SHA256())),
}


@pytest.mark.parametrize("name", NO_SIGNATURES)
def test_a_signature_that_is_none(name: str) -> None:
    text = f"{part(header().encode())}.{part(claims().encode())}"
    with pytest.raises(Unauthenticated, match="signature is not the issuer's"):
        VERIFIER.verify(f"{text}.{part(NO_SIGNATURES[name])}", NOW)


def test_numbers_of_a_good_signature_with_more_zeros() -> None:
    head, body, signature = signed(header(), claims()).split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(f"{head}.{body}.{part(bytes(1) + raw[:32] + bytes(1) + raw[32:])}", NOW)


HEADERS: dict[str, str | bytes] = {
    "alg-twice-none-last": '{"alg": "ES256", "kid": "k1", "alg": "none"}',
    "alg-in-another-case": header(alg="es256"),
    "alg-with-a-space": header(alg="ES256 "),
    "alg-a-list": header(alg=["ES256"]),
    "alg-null": header(alg=None),
    "kid-a-number": header(kid=1),
    "critical-b64": header(crit=["b64"], b64=False),
    "critical-unknown": header(crit=["x"], x=1),
    "critical-empty": header(crit=[]),
    "not-an-object": '["ES256"]',
    "text": '"ES256"',
    "two-objects": header() + header(),
    "a-byte-order-mark": b"\xef\xbb\xbf" + header().encode(),
    "utf-16": header().encode("utf-16-le"),
    "broken-utf-8": b'{"alg": "ES256", "kid": "k1", "x": "\xff"}',
    "single-quotes": "{'alg': 'ES256'}",
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_signed_and_wrong(name: str) -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(signed(HEADERS[name], claims()), NOW)


PRIVATE = CLAIMS["kubernetes.io"]
SUBJECT = "system:serviceaccount:default:reviews"
WRONG_CLAIMS: dict[str, str | bytes] = {
    "exp-true": claims(exp=True),
    "exp-text": claims(exp=str(NOW + 3600)),
    "exp-a-list": claims(exp=[NOW + 3600]),
    "exp-negative": claims(exp=-1),
    "exp-zero": claims(exp=0),
    "exp-nan": claims().replace(str(NOW + 3600), "NaN"),
    "exp-infinite": claims().replace(str(NOW + 3600), "Infinity"),
    "exp-beyond-numbers": claims().replace(str(NOW + 3600), "1e999"),
    "exp-twice-past-last": claims()[:-1] + ', "exp": 1}',
    "nbf-text": claims(nbf="0"),
    "nbf-false": claims(nbf=False),
    "nbf-in-milliseconds": claims(nbf=NOW * 1000),
    "iat-missing": json.dumps({name: value for name, value in CLAIMS.items() if name != "iat"}),
    "aud-an-object": claims(aud={"istio-ca": True}),
    "aud-within-a-list": claims(aud=[["istio-ca"]]),
    "aud-begins-like-ours": claims(aud="istio-ca-of-another"),
    "aud-in-another-case": claims(aud="Istio-CA"),
    "aud-with-a-space": claims(aud="istio-ca "),
    "iss-a-list": claims(iss=[ISSUER]),
    "iss-with-a-slash": claims(iss=ISSUER + "/"),
    "sub-with-five-parts": claims(sub=SUBJECT + ":admin"),
    "sub-with-a-space": claims(sub=SUBJECT + " "),
    "sub-with-a-nul": claims(sub=SUBJECT + "\0"),
    "sub-in-another-case": claims(sub=SUBJECT.replace("s", "S", 1)),
    "sub-a-list": claims(sub=[SUBJECT]),
    "sub-twice-another-last": claims()[:-1] + ', "sub": "system:serviceaccount:kube-system:admin"}',
    "namespace-a-list": claims(**{"kubernetes.io": {**PRIVATE, "namespace": ["default"]}}),
    "private-twice-another-last": claims()[:-1]
    + ', "kubernetes.io": {"namespace": "kube-system", "serviceaccount": {"name": "admin"}}}',
    "not-an-object": "[]",
    "two-objects": claims() + claims(),
    "trailing-comma": claims()[:-1] + ",}",
    "comment": claims()[:-1] + "/**/}",
    "broken-utf-8": claims().encode()[:-1] + b', "x": "\xff"}',
    "lone-surrogate": claims()[:-1] + ', "x": "\\ud800"}',
    "a-thousand-levels": claims()[:-1] + ', "x": ' + "[" * 1100 + "]" * 1100 + "}",
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_claims_that_are_signed_and_wrong(name: str) -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(signed(header(), WRONG_CLAIMS[name]), NOW)


def test_other_serializations_are_no_tokens() -> None:
    """JWE, and JWS as JSON (RFC 7515 7.2): with a good signature in them."""
    head, body, signature = signed(header(), claims()).split(".")
    flattened = {"protected": head, "payload": body, "signature": signature}
    general = {"payload": body, "signatures": [{"protected": head, "signature": signature}]}
    good = f"{head}.{body}.{signature}"
    forms = (json.dumps(flattened), json.dumps(general), f"{good}.a.b", f"{head}..{signature}", f"{good} {good}")
    for form in (*forms, f" {good}", f"{good}\n", f"{good},{good}", good.replace(".", "%2E")):
        with pytest.raises(Unauthenticated):
            VERIFIER.verify(form, NOW)
