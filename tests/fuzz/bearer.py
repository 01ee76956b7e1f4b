"""Fuzz target: whatever arrives as a bearer token. `python -m tests.fuzz.bearer [libFuzzer's options] CORPUS`.

The first byte says how the rest is used:
    0  it is the value of the Authorization header
    1  it is the claims, and is signed by the issuer's key
    2  it is the header of a token, and is signed with good claims
    3  it is the status of a TokenReview
    4  it is the value of X-Heddle-Pod, of a caller with a good certificate

What must hold: a token is refused by a HeddleError and nothing else; who is let in has a token of this issuer for this
audience that is valid now, or a certificate, and is who it says, in a pod that exists and runs as that account.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["kube.jws", "kube.tokens", "ca.callers", "mesh.identity"]):
    from ca.callers import Callers, Credentials, PodFacts
    from kube.jws import IssuerKey
    from kube.tokens import CLOCK_SKEW, LEEWAY, KeysVerifier, token_from_review

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ca.policy import Caller
from ca.serials import leaf_serial
from ca.settings import CaSettings
from mesh.errors import HeddleError
from mesh.identity import Identity
from tests.fuzz.run import run

NOW = 1_800_000_000
ISSUER, AUDIENCE = "https://kubernetes.default.svc.cluster.local", "istio-ca"
KEY = ec.derive_private_key(0x7654321, ec.SECP256R1())
POD = {"name": "reviews-1", "uid": "uid-1"}
CLAIMS = {
    "iss": ISSUER,
    "aud": [AUDIENCE],
    "sub": "system:serviceaccount:default:reviews",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 3600,
    "jti": "1",
    "kubernetes.io": {
        "namespace": "default",
        "serviceaccount": {"name": "reviews", "uid": "sa-uid"},
        "pod": POD,
        "node": {"name": "node-1", "uid": "node-uid"},
        "warnafter": NOW + 1800,
    },
}
EXISTING = {
    ("default", "reviews-1"): PodFacts("uid-1", "reviews", "node-1"),
    ("default", "reviews-2"): PodFacts("uid-2", "reviews", "node-1"),
}


class _Keys(KeysVerifier):
    """The verifier with its key in hand: reading keys is not what is fuzzed."""

    def __init__(self) -> None:
        super().__init__(lambda: "", issuer=ISSUER, audience=AUDIENCE)
        self._keys = (IssuerKey(KEY.public_key(), "ES256", "k1"),)
        self._issuer = ISSUER
        self._loaded_at = NOW


def _pods(namespace: str, name: str, _uid: str) -> PodFacts | None:
    return EXISTING.get((namespace, name))


CALLERS = Callers(CaSettings(), _Keys(), _pods)


def _certificate() -> bytes:
    start = datetime.datetime.fromtimestamp(NOW - 60, datetime.UTC)
    uri = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/reviews")
    builder = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), KEY.public_key(), leaf_serial(POD["uid"], b"random" * 2)
    )
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    for extension, critical in (
        (x509.SubjectAlternativeName([uri]), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(True, False, False, False, False, False, False, False, False), True),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


CERTIFICATE = _certificate()


def _part(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def signed(header: bytes, claims: bytes) -> bytes:
    """A token (JWS compact) with these parts, signed by KEY."""
    text = _part(header) + b"." + _part(claims)
    r, s = decode_dss_signature(KEY.sign(text, ec.ECDSA(hashes.SHA256())))
    return text + b"." + _part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


HEADER = json.dumps({"alg": "ES256", "kid": "k1"}).encode()
GOOD = json.dumps(CLAIMS).encode()


def _check(caller: Caller, token: str) -> None:
    """AssertionError unless an independent reading of the token agrees that this is the caller."""
    text = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert claims["iss"] == ISSUER
    audiences = claims["aud"]
    assert AUDIENCE in (audiences if isinstance(audiences, list) else [audiences])
    assert claims["exp"] > NOW - LEEWAY
    assert claims.get("nbf") is None or claims["nbf"] <= NOW + CLOCK_SKEW
    _, _, namespace, name = claims["sub"].split(":")
    assert caller.identity == Identity("cluster.local", namespace, name)
    _check_pod(caller)


def _check_pod(caller: Caller) -> None:
    if caller.pod_name:
        facts = EXISTING[caller.pod_namespace, caller.pod_name]
        assert caller.pod_uid == facts.uid
        assert (caller.pod_namespace, facts.service_account) == (
            caller.identity.namespace,
            caller.identity.service_account,
        )
    else:
        assert caller.identity.namespace == "istio-system", caller


def one(data: bytes) -> None:
    """One input."""
    mode, rest = data[:1], data[1:]
    if mode == b"\x03":
        _review(rest)
        return
    if mode in (b"\x01", b"\x02"):
        rest = b"Bearer " + (signed(HEADER, rest) if mode == b"\x01" else signed(rest, GOOD))
    text = rest.decode("latin-1")
    by_certificate = mode == b"\x04"
    credentials = Credentials(pod=text, certificate=CERTIFICATE) if by_certificate else Credentials(text)
    try:
        caller = CALLERS.authenticate(credentials, NOW)
    except HeddleError:
        return
    if by_certificate:
        assert caller.pod_uid == POD["uid"], "renewed under another pod's name"
        _check_pod(caller)
    else:
        _check(caller, text.partition(" ")[2].strip())


def _review(raw: bytes) -> None:
    try:
        status = json.loads(raw)
    except (ValueError, RecursionError):  # the API client reads JSON, not what is fuzzed
        return
    try:
        found = token_from_review({"status": status}, AUDIENCE)
    except HeddleError:
        return
    assert found.namespace
    assert found.service_account


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    review = {
        "authenticated": True,
        "audiences": [AUDIENCE],
        "user": {
            "username": CLAIMS["sub"],
            "uid": "sa-uid",
            "extra": {"authentication.kubernetes.io/pod-name": ["reviews-1"]},
        },
    }
    old = {**CLAIMS, "kubernetes.io": {**CLAIMS["kubernetes.io"], "pod": None}}  # type: ignore[dict-item]
    return [
        b"\x00Bearer " + signed(HEADER, GOOD),
        b"\x01" + GOOD,
        b"\x01" + json.dumps(old).encode(),
        b"\x02" + HEADER,
        b'\x02{"alg":"none"}',
        b'\x02{"alg":"ES256","crit":["exp"],"b64":false}',
        b"\x03" + json.dumps(review).encode(),
        b"\x04default/reviews-1/uid-1",
        b"\x04default/reviews-2/uid-2",
    ]


_WORDS = (
    *(b'"iss"', b'"aud"', b'"sub"', b'"exp"', b'"nbf"', b'"iat"', b'"kubernetes.io"', b'"pod"', b'"node"', b'"uid"'),
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 400, b"{}", b"[]", b'""', b"[" * 200, b'"\\ud800"', b"\\u0000"),
    *(
        b'"system:serviceaccount:kube-system:admin"',
        b'"namespace":"kube-system"',
        b'"name":"reviews-1"',
        b".",
        b"=",
        b" ",
    ),
)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's own mutation, or a word of tokens put somewhere, or a value replaced by one."""
    source = random.Random(seed)
    if source.random() < 0.5:
        return bytes(atheris.Mutate(data, most))
    word, at = source.choice(_WORDS), source.randrange(1, len(data) + 1)
    if source.random() < 0.5:
        ends = [end for end in (data.find(mark, at) for mark in (b",", b"}", b"]")) if end > 0]
        begins = max(data.rfind(mark, 1, at) for mark in (b":", b",", b"["))
        if ends and begins > 0:
            return (data[: begins + 1] + word + data[min(ends) :])[:most]
    return (data[:at] + word + data[at:])[:most]


if __name__ == "__main__":
    run(sys.argv, one, seeds(), mutate)
