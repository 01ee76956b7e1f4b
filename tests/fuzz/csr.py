"""Fuzz target: whatever arrives as a request. `python -m tests.fuzz.csr [libFuzzer's options] CORPUS`.

The first byte says how the rest is used:
    0  it is the request, PEM or DER
    1  it is the part of a request that is signed, and is signed by KEY: past the signature without luck
    2  it is the body of POST /v1/certificates

What must hold: a request is refused by a HeddleError and nothing else; what is let through is a key that policy
allows, certified as it is for the caller and nobody else; no body makes the service fail.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import time
from collections.abc import Sequence

import atheris

with atheris.instrument_imports(include=["ca.request", "ca.app", "ca.policy", "ca.sign", "serving.json_http"]):
    from ca.app import Deps, create_app
    from ca.request import SignableKey, parse_request
    from ca.sign import issuer_of, prepare, sign

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.callers import Credentials
from ca.issue import Issued, pem
from ca.limits import Limits
from ca.metrics import Metrics
from ca.policy import Caller, Grant
from ca.profile import intermediate_certificate, root_certificate
from ca.settings import CaSettings, Rate
from ca.trust import new_serial
from mesh.errors import HeddleError
from mesh.identity import Identity
from serving.logs import configure
from svid.material import TrustBundle
from tests.support.der import mutated, sequence

NOW = int(time.time())
CALLER = Caller("token", Identity("cluster.local", "default", "reviews"), "default", "reviews-1", "uid-1", "node-1")
GRANT = Grant(CALLER.identity, (), NOW, NOW + 3600)
KINDS = {"P-256", "P-384", *(f"RSA-{bits}" for bits in range(2048, 4097))}
KEY = ec.derive_private_key(0x1234567, ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")

ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = root_certificate(ROOT_KEY, "cluster.local", new_serial(), NOW, NOW + 1_000_000)
ISSUER_KEY = ec.generate_private_key(ec.SECP256R1())
INTERMEDIATE = intermediate_certificate(
    ISSUER_KEY.public_key(), ROOT, ROOT_KEY, "cluster.local", new_serial(), NOW, NOW + 1_000_000
)
ISSUER = issuer_of(INTERMEDIATE)


class _Callers:
    """Everybody is CALLER: who is who has a target of its own."""

    def authenticate(self, _credentials: Credentials, _now: float) -> Caller:
        return CALLER


class _Issuance:
    """Signs, and looks at what was signed."""

    def begin(self, caller: Caller, key: SignableKey, ttl: int | None) -> SignableKey:
        assert ttl is None or ttl > 0, ttl
        assert caller is CALLER
        return key

    def finish(self, keys: Sequence[SignableKey]) -> list[Issued]:
        bundle = TrustBundle("cluster.local", 1, ())
        return [Issued(pem(_certified(key)), "", bundle, CALLER, "1", NOW, NOW + 1) for key in keys]


def _app() -> object:
    configure()
    used = {
        "settings": CaSettings(),
        "callers": _Callers(),
        "issuance": _Issuance(),
        "limits": Limits(*[Rate(0, 0)] * 3),
        "metrics": Metrics(),
        "now": time.time,
        "refused": lambda *_: None,
    }
    unused = {each.name: None for each in dataclasses.fields(Deps)}
    app = create_app(Deps(**(unused | used)))  # type: ignore[arg-type]
    return app.test_client()


CLIENT = _app()


def _certified(key: SignableKey) -> bytes:
    """A leaf for `key`; AssertionError unless it says just what was granted."""
    assert key.kind in KINDS, key.kind
    der = sign(ISSUER_KEY, prepare(ISSUER, GRANT, key, new_serial()))
    leaf = x509.load_der_x509_certificate(der)
    spki = leaf.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert spki == key.spki
    leaf.verify_directly_issued_by(INTERMEDIATE)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(str(CALLER.identity))], names
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert len(leaf.extensions) == 6
    return der


def signed(info: bytes) -> bytes:
    """A request (DER) with these contents, signed by KEY."""
    signature = KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    return sequence(info, _ECDSA_SHA256, b"\x03" + _length(len(signature) + 1) + b"\x00" + signature)


def _length(size: int) -> bytes:
    return bytes((size,)) if size < 0x80 else bytes((0x81, size))


def one(data: bytes) -> None:
    """One input."""
    mode, rest = data[:1], data[1:]
    if mode == b"\x02":
        answer = CLIENT.post("/v1/certificates", data=rest, content_type="application/json")  # type: ignore[attr-defined]
        assert answer.status_code in (201, 400, 413), (answer.status_code, answer.data)
        assert answer.is_json
        return
    try:
        key = parse_request(signed(rest) if mode == b"\x01" else rest)
    except HeddleError:
        return
    _certified(key)
    if mode == b"\x01":
        assert key.spki == SPKI, "signed by one key, certified for another"


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wishes = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://other/ns/a/sa/b")]), critical=True
    )
    found = []
    for each in (builder, wishes):
        csr = each.sign(KEY, hashes.SHA256())
        text = csr.public_bytes(serialization.Encoding.PEM)
        found += [
            b"\x00" + text,
            b"\x00" + csr.public_bytes(serialization.Encoding.DER),
            b"\x01" + csr.tbs_certrequest_bytes,
            b'\x02{"csr": "%s", "ttlSeconds": 60}' % text.replace(b"\n", b"\\n"),
        ]
    p384 = ec.derive_private_key(99, ec.SECP384R1())
    found.append(b"\x00" + builder.sign(p384, hashes.SHA384()).public_bytes(serialization.Encoding.DER))
    return found


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's own mutation, or one of the DER inside."""
    source = random.Random(seed)
    if data[:1] in (b"\x00", b"\x01") and data[1:2] == b"\x30" and source.random() < 0.7:
        return data[:1] + mutated(data[1:], source)[: most - 1]
    return bytes(atheris.Mutate(data, most))


if __name__ == "__main__":
    from tests.fuzz.run import run

    run(sys.argv, one, seeds(), mutate)
