"""Service account tokens: by the issuer's keys and by TokenReview."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from kube.client import Refused
from kube.jws import parse_jws, parse_keys
from kube.tokens import (
    CLOCK_SKEW,
    KEYS_AGE,
    KEYS_RELOAD_INTERVAL,
    LEEWAY,
    KeysVerifier,
    ReviewVerifier,
    ServiceAccountToken,
    Slots,
    discovered_issuer,
    read_keys,
    token_from_review,
)
from mesh.errors import Busy, InvalidInput, Unauthenticated, Unavailable
from tests.ca.harness import ISSUER, TokenMint, unsigned
from tests.ca.harness import ApiServer as Api
from tests.support.ports import free_port

MINT = TokenMint()
NOW = 1_800_000_000
EXPECTED = ServiceAccountToken("default", "reviews", "sa-uid", "reviews-1", "uid-1")


class Pod:
    name, uid = "reviews-1", "uid-1"


def claims(**change: Any) -> dict[str, Any]:
    times = {"iat": NOW, "nbf": NOW, "exp": NOW + 3600, **change}
    return MINT.claims("default", "reviews", Pod(), **times)  # type: ignore[arg-type]


def verifier(mint: TokenMint = MINT, *, issuer: str | None = ISSUER) -> KeysVerifier:
    return KeysVerifier(lambda: json.dumps(mint.jwks()), issuer=issuer, audience="istio-ca")


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "RS512"])
def test_verifies(algorithm: str) -> None:
    mint = TokenMint(algorithm)
    assert verifier(mint).verify(mint.sign(claims()), NOW) == EXPECTED


def test_agrees_with_pyjwt_on_es384() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    by_pem = KeysVerifier(lambda: pem, issuer=ISSUER, audience="istio-ca")
    assert by_pem.verify(jwt.encode(claims(), key, algorithm="ES384"), NOW) == EXPECTED


def test_audience_may_be_a_string_and_issuer_any() -> None:
    assert verifier().verify(MINT.sign(claims(aud="istio-ca")), NOW) == EXPECTED
    assert verifier(issuer=None).verify(MINT.sign(claims(iss="https://other")), NOW) == EXPECTED


def test_node_and_no_pod() -> None:
    bound = {**claims()["kubernetes.io"], "node": {"name": "n1", "uid": "x"}}
    del bound["pod"]
    token = verifier().verify(MINT.sign(claims(**{"kubernetes.io": bound})), NOW)
    assert (token.node, token.pod_name, token.pod_uid) == ("n1", "", "")


def test_times_have_a_leeway() -> None:
    token = MINT.sign(claims(exp=NOW + 100, nbf=NOW + 50))
    for good in (NOW + 50 - CLOCK_SKEW, NOW + 100 + LEEWAY - 1):
        assert verifier().verify(token, good) == EXPECTED
    for bad in (NOW + 50 - CLOCK_SKEW - 1, NOW + 100 + LEEWAY):
        with pytest.raises(Unauthenticated):
            verifier().verify(token, bad)


def forged(header: dict[str, Any]) -> str:
    return unsigned(claims(), header)


def hmac_with_the_public_key() -> str:
    """The classical confusion: the public key's text used as an HMAC secret."""
    secret = MINT.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = forged({"alg": "HS256", "kid": "k1"}).rpartition(".")[0]
    digest = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "ä.ö.ü",
        forged({"alg": "none"}),
        forged({"alg": "None", "kid": "k1"}),
        forged({"alg": "ES256", "kid": "k1"}),
        forged({"alg": ["ES256"], "kid": "k1"}),
        forged({"kid": "k1"}),
        hmac_with_the_public_key(),
        TokenMint().sign(claims()),
        TokenMint("RS256").sign(claims()),
        MINT.sign(claims()) + "A",
        MINT.sign(claims()) + "=",
        MINT.sign(claims()).replace(".", "!", 1),
        jwt.encode(claims(), MINT.key, algorithm="ES256", headers={"kid": "k1", "crit": ["exp"]}),
        forged({"alg": "ES256", "b64": False}),
        "x" * 20_000,
    ],
)
def test_refuses(token: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier().verify(token, NOW)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "ES384", "es256", ""])
def test_the_header_must_name_the_algorithm_of_the_key(algorithm: str) -> None:
    """Even when the signature is the issuer's own."""
    signed = forged({"alg": algorithm, "kid": "k1"}).rpartition(".")[0]
    r, s = decode_dss_signature(MINT.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    signature = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated, match="no key of the issuer has its key id and algorithm"):
        verifier().verify(f"{signed}.{signature}", NOW)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_a_changed_byte_is_refused(at: int, flip: int) -> None:
    token = bytearray(TOKEN.encode())
    at %= len(token)
    token[at] ^= flip
    text = token.decode("latin-1")
    try:
        VERIFIER.verify(text, NOW)
    except Unauthenticated:
        return
    # The last character of a part of 64 bytes has bits that carry nothing (RFC 4648 section 3.5).
    assert parse_jws(text).signature == parse_jws(TOKEN).signature


TOKEN, VERIFIER = MINT.sign(claims()), verifier()


@given(st.text(max_size=200))
def test_garbage(text: str) -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(text, NOW)


def test_new_keys_are_found_and_not_asked_for_without_end() -> None:
    old, new = TokenMint(), TokenMint()
    served, loads = [old], []

    def load() -> str:
        loads.append(1)
        return json.dumps(served[0].jwks("old" if served[0] is old else "new"))

    keys = KeysVerifier(load, issuer=ISSUER, audience="istio-ca")
    assert keys.verify(old.sign(claims(), "old"), NOW) == EXPECTED
    served[0] = new
    with pytest.raises(Unauthenticated, match="key id"):
        keys.verify(new.sign(claims(), "new"), NOW + 1)
    for _ in range(20):
        with pytest.raises(Unauthenticated):
            keys.verify(new.sign(claims(), "unheard of"), NOW + 2)
    assert len(loads) == 1
    assert keys.verify(new.sign(claims(), "new"), NOW + KEYS_RELOAD_INTERVAL + 1) == EXPECTED
    assert len(loads) == 2


def test_a_key_that_is_withdrawn_counts_no_longer() -> None:
    old, new = TokenMint(), TokenMint()
    served: list[str | Exception] = [json.dumps(old.jwks("old")), Unavailable("down"), json.dumps(new.jwks("new"))]

    def load() -> str:
        text = served.pop(0)
        if isinstance(text, Exception):
            raise text
        return text

    keys = KeysVerifier(load, issuer=ISSUER, audience="istio-ca")
    token = old.sign(claims(), "old")
    for now in (NOW, NOW + KEYS_AGE, NOW + KEYS_AGE + 1):  # the last: they cannot be read, and count on
        assert keys.verify(token, now) == EXPECTED
    with pytest.raises(Unauthenticated, match="key id"):
        keys.verify(token, NOW + 2 * KEYS_AGE + 2)


def test_the_issuer_is_asked_for_with_the_keys() -> None:
    text = json.dumps(MINT.jwks())
    keys = KeysVerifier(
        lambda: text, issuer=lambda: discovered_issuer(lambda _: {"issuer": ISSUER}), audience="istio-ca"
    )
    assert keys.verify(MINT.sign(claims()), NOW) == EXPECTED
    with pytest.raises(Unauthenticated, match="its issuer is not"):
        keys.verify(MINT.sign(claims(iss="https://elsewhere")), NOW)
    nobody = KeysVerifier(lambda: text, issuer=lambda: discovered_issuer(lambda _: {}), audience="istio-ca")
    with pytest.raises(Unavailable, match="names no issuer"):
        nobody.verify(MINT.sign(claims()), NOW)


def test_keys_that_cannot_be_read() -> None:
    answers: list[object] = [OSError("gone"), Unavailable("down"), "nonsense", json.dumps(MINT.jwks())]

    def load() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    keys = KeysVerifier(load, issuer=ISSUER, audience="istio-ca")
    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot be read"):
            keys.verify(MINT.sign(claims()), NOW)
    assert keys.verify(MINT.sign(claims()), NOW) == EXPECTED


def jwk(key: Any, **more: str) -> str:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else jwt.algorithms.ECAlgorithm
    return json.dumps({"keys": [{**json.loads(kind.to_jwk(key)), **more}]})


def test_keys_without_an_algorithm_get_theirs() -> None:
    ec256, ec384 = (ec.generate_private_key(curve).public_key() for curve in (ec.SECP256R1(), ec.SECP384R1()))
    rsa2048 = rsa.generate_private_key(65537, 2048).public_key()
    assert [parse_keys(jwk(key))[0].algorithm for key in (ec256, ec384, rsa2048)] == ["ES256", "ES384", "RS256"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        "{broken",
        "[]",
        jwk(rsa.generate_private_key(65537, 1024).public_key()),
        jwk(ec.generate_private_key(ec.SECP521R1()).public_key(), alg="ES512"),
        jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), alg="HS256"),
        jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), use="enc"),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    ],
)
def test_refuses_keys(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_keys(text)


def test_reads_keys_from_file_url_and_api(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("text")
    assert read_keys(str(tmp_path / "keys"), lambda _path: None) == "text"
    assert json.loads(read_keys("api", lambda path: {"path": path})) == {"path": "/openid/v1/jwks"}
    with Api(MINT) as api:
        assert json.loads(read_keys(f"{api.url}/openid/v1/jwks", lambda _path: None)) == MINT.jwks()
        api.broken = True
        with pytest.raises(Unavailable, match="500"):
            read_keys(f"{api.url}/openid/v1/jwks", lambda _path: None)
    with pytest.raises(Unavailable, match="does not answer"):
        read_keys(f"http://127.0.0.1:{free_port()}/openid/v1/jwks", lambda _path: None)


def review(**change: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:default:reviews",
        "uid": "sa-uid",
        "extra": {
            "authentication.kubernetes.io/pod-name": ["reviews-1"],
            "authentication.kubernetes.io/pod-uid": ["uid-1"],
        },
    }
    return {"status": {"authenticated": True, "audiences": ["istio-ca"], "user": user, **change}}


def test_review() -> None:
    sent: list[tuple[str, Mapping[str, object]]] = []

    def post(path: str, body: Mapping[str, object]) -> object:
        sent.append((path, body))
        return review()

    assert ReviewVerifier(post, audience="istio-ca").verify("the.token.here", NOW) == EXPECTED
    path, body = sent[0]
    assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
    assert body["spec"] == {"token": "the.token.here", "audiences": ["istio-ca"]}
    with pytest.raises(Unauthenticated, match="longer"):
        ReviewVerifier(post, audience="istio-ca").verify("x" * 20_000, NOW)
    assert len(sent) == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"status": None},
        review(authenticated=False),
        review(authenticated="true"),
        review(audiences=None),
        review(audiences=["vault"]),
        review(user={"username": "admin"}),
        review(user={"username": "system:serviceaccount::x"}),
        review(user=None),
    ],
)
def test_review_that_says_no(answer: object) -> None:
    with pytest.raises(Unauthenticated):
        token_from_review(answer, "istio-ca")


def test_reviews_are_bounded_and_a_slow_server_is_not_waited_for_by_everybody() -> None:
    release, entered = threading.Event(), threading.Semaphore(0)

    def slow(_path: str, _body: object) -> object:
        entered.release()
        assert release.wait(60)
        return {}

    clock = [0.0]
    slots = Slots(2, patience=0.01, clogged_seconds=5.0, monotonic=lambda: clock[0])
    verifier = ReviewVerifier(slow, audience="istio-ca", slots=slots)
    with ThreadPoolExecutor(2) as pool:
        hanging = [pool.submit(verifier.verify, "a", 0.0) for _ in range(2)]
        for _ in hanging:
            entered.acquire()
        for _ in range(3):
            with pytest.raises(Busy, match="2 calls are on their way"):
                verifier.verify("b", 0.0)
        release.set()
        for call in hanging:
            assert isinstance(call.exception(), Unauthenticated)
    with pytest.raises(Unauthenticated):  # there is room again
        verifier.verify("b", 0.0)


def test_a_server_that_refuses_us_says_nothing_about_the_token() -> None:
    def refuse(_path: str, _body: object) -> object:
        raise Refused(403, "tokenreviews is forbidden")

    with pytest.raises(Unavailable, match="cannot be reviewed: tokenreviews is forbidden"):
        ReviewVerifier(refuse, audience="istio-ca").verify("a", 0.0)


def test_the_servers_reason_is_told() -> None:
    said = {"status": {"error": "[invalid bearer token, service account token has expired]"}}
    with pytest.raises(Unauthenticated, match=r"refuses the token: service account token has expired$"):
        token_from_review(said, "istio-ca")
