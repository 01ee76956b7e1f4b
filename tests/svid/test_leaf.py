"""Whom a certificate names: what X509-SVID asks of a leaf, each as a certificate that differs in just that."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Unauthenticated
from svid.leaf import leaf_identity
from svid.tls import peer_identity
from tests.support.chains import DER, REVIEWS, URI, Chain, purposes, uris, usage

CHAIN = Chain()
KEY = ec.generate_private_key(ec.SECP256R1())
MUCH = "a" * 63

ACCEPTED: dict[str, dict[str, Any]] = {
    "as-the-ca-makes-it": {},
    "no-extended-key-usage": {"purposes": None},
    "more-purposes": {
        "purposes": (
            purposes(*(getattr(ExtendedKeyUsageOID, n) for n in ("CODE_SIGNING", "SERVER_AUTH", "CLIENT_AUTH"))),
            True,
        )
    },
    "key-agreement-too": {"usage": (usage("digital_signature", "key_agreement", "key_encipherment"), True)},
    "subject-and-names-not-critical": {"subject": "reviews", "names": (uris(URI), False)},
    "dns-names-too": {
        "names": (
            x509.SubjectAlternativeName(
                [x509.DNSName("a.istio-system.svc"), *uris(URI), x509.DNSName("b.istio-system.svc")]
            ),
            True,
        )
    },
}

# What is wrong, the words of the refusal, and whether go-spiffe refuses it too: it leaves some of it to the issuer.
REFUSED: dict[str, tuple[dict[str, Any], str, bool]] = (
    {
        "authority": (
            {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)},
            "a signing certificate",
            True,
        ),
        "authority-of-length-0": (
            {
                "constraints": (x509.BasicConstraints(ca=True, path_length=0), True),
                "usage": (usage("digital_signature", "key_cert_sign"), True),
            },
            "a signing certificate",
            True,
        ),
        "may-sign-certificates": ({"usage": (usage("digital_signature", "key_cert_sign"), True)}, "may sign", True),
        "may-sign-revocation-lists": ({"usage": (usage("digital_signature", "crl_sign"), True)}, "may sign", True),
        "no-key-usage": ({"usage": None}, "no key usage", True),
        "key-usage-not-critical": ({"usage": (usage("digital_signature"), False)}, "not critical", False),
        "no-digital-signature": ({"usage": (usage("key_agreement"), True)}, "digitalSignature", True),
        "for-clients-only": (
            {"purposes": (purposes(ExtendedKeyUsageOID.CLIENT_AUTH), False)},
            "servers and clients",
            False,
        ),
        "for-servers-only": (
            {"purposes": (purposes(ExtendedKeyUsageOID.SERVER_AUTH), False)},
            "servers and clients",
            False,
        ),
        "no-names": ({"names": None, "subject": "reviews"}, "exactly one URI, .* has 0", True),
        "no-uri": ({"names": (x509.SubjectAlternativeName([x509.DNSName("a.svc")]), True)}, "has 0", True),
        "two-uris": ({"names": (uris(URI, URI + "2"), True)}, "has 2", True),
        "the-same-uri-twice": ({"names": (uris(URI, URI), True)}, "has 2", True),
        "another-uri-first": ({"names": (uris("https://example.com/", URI), True)}, "has 2", True),
        "empty-subject-and-names-not-critical": ({"names": (uris(URI), False)}, "names are not critical", False),
    }
    | {
        name: ({"names": (uris(uri), True)}, "names no workload", by_go)
        for name, (uri, by_go) in {
            "no-path": ("spiffe://cluster.local", True),
            "root-path": ("spiffe://cluster.local/", True),
            "another-scheme": ("https://cluster.local/ns/default/sa/reviews", True),
            "scheme-in-capitals": ("SPIFFE://cluster.local/ns/default/sa/reviews", False),
            "no-trust-domain": ("spiffe:///ns/default/sa/reviews", True),
            "trust-domain-in-capitals": ("spiffe://Cluster.Local/ns/default/sa/reviews", True),
            "trust-domain-with-port": ("spiffe://cluster.local:443/ns/default/sa/reviews", True),
            "trust-domain-with-user": ("spiffe://root@cluster.local/ns/default/sa/reviews", True),
            "trust-domain-percent-encoded": ("spiffe://cluster%2elocal/ns/default/sa/reviews", True),
            "query": (URI + "?a=b", True),
            "fragment": (URI + "#a", True),
            "trailing-slash": (URI + "/", True),
            "empty-segment": ("spiffe://cluster.local/ns//default/sa/reviews", True),
            "dot-segment": ("spiffe://cluster.local/ns/./sa/reviews", True),
            "dot-dot-segment": ("spiffe://cluster.local/ns/default/sa/../sa/reviews", True),
            "dot-dot-in-place-of-the-namespace": ("spiffe://cluster.local/ns/../sa/reviews", True),
            "percent-encoded-slash": ("spiffe://cluster.local/ns/default%2Fsa%2Fadmin/sa/reviews", True),
            "percent-encoded-dots": ("spiffe://cluster.local/ns/%2e%2e/sa/reviews", True),
            "namespace-in-capitals": ("spiffe://cluster.local/ns/Default/sa/reviews", False),  # no Kubernetes name
            "not-of-istios-form": ("spiffe://cluster.local/workload/reviews", False),
            "2049-bytes": (f"spiffe://cluster.local/ns/default/sa/{'.'.join([MUCH] * 40)}"[:2049], False),
            "nul": (URI + "\0", True),
            "newline": (URI + "\n", True),
        }.items()
    }
)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts(name: str) -> None:
    assert leaf_identity(CHAIN.odd_leaf(KEY, ACCEPTED[name]).public_bytes(DER)) == REVIEWS


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    changes, said, _ = REFUSED[name]
    with pytest.raises(Unauthenticated, match=said):
        leaf_identity(CHAIN.odd_leaf(KEY, changes).public_bytes(DER))


def test_takes_what_the_ca_makes() -> None:
    assert leaf_identity(CHAIN.leaf(KEY, dns_names=("a.svc",)).public_bytes(DER)) == REVIEWS


def test_signing_certificates_identify_nobody() -> None:
    for certificate in (CHAIN.root, CHAIN.intermediate):
        with pytest.raises(Unauthenticated, match="a signing certificate identifies nobody"):
            leaf_identity(certificate.public_bytes(DER))


def test_an_extension_that_is_there_twice() -> None:
    """`cryptography` makes none such, so one OID is written over another of the same length: two key usages."""
    der = CHAIN.odd_leaf(KEY, {}).public_bytes(DER)
    basic_constraints, key_usage = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0f")
    with pytest.raises(Unauthenticated, match="cannot be read"):
        leaf_identity(der.replace(basic_constraints, key_usage))


@given(st.integers(0, 2000), st.integers(0, 2000), st.binary(max_size=3))
def test_damaged_ones_are_never_more_than_refused(begin: int, end: int, put: bytes) -> None:
    der = CHAIN.intermediate.public_bytes(DER)
    with pytest.raises(Unauthenticated):
        leaf_identity(der[:begin] + put + der[end:])


@pytest.mark.parametrize(
    "name", ["as-the-ca-makes-it", "authority", "may-sign-certificates", "two-uris", "no-key-usage"]
)
def test_in_a_real_handshake(name: str, tmp_path: Path) -> None:
    """By OpenSSL or by us: a peer with such a certificate is nobody."""
    changes = ACCEPTED.get(name, {}) or REFUSED.get(name, ({},))[0]
    chain, key = CHAIN.write(tmp_path, "peer", CHAIN.odd_leaf(KEY, changes), KEY)
    server = _context(ssl.PROTOCOL_TLS_SERVER, chain, key, CHAIN.write_root(tmp_path))
    client = _context(ssl.PROTOCOL_TLS_CLIENT, chain, key, tmp_path / "roots.pem")
    left, right = socket.socketpair()
    with left, right:
        other = threading.Thread(target=_say_something, args=(client, right))
        other.start()
        try:
            with server.wrap_socket(left, server_side=True) as connection:
                connection.recv(1)
                identity = peer_identity(connection)
        except (ssl.SSLError, Unauthenticated):
            assert name in REFUSED
        else:
            assert name in ACCEPTED
            assert identity == REVIEWS
        finally:
            left.close()
            other.join()


def _context(protocol: int, chain: Path, key: Path, roots: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(roots)
    context.load_cert_chain(chain, key)
    return context


def _say_something(context: ssl.SSLContext, plain: socket.socket) -> None:
    # What its own check says of the server, which shows the same certificate, is not asked for here.
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(plain) as connection:
            connection.sendall(b"x")
            connection.recv(1)
    except OSError:
        pass


def test_go_spiffe_agrees(go_spiffe: Path, tmp_path: Path) -> None:
    """Whatever it refuses is refused here; and what is accepted here, it takes for the same workload."""
    expected = dict.fromkeys(ACCEPTED, True) | {name: not by_go for name, (_, _, by_go) in REFUSED.items()}
    pairs = []
    for name in expected:
        changes = ACCEPTED.get(name) if name in ACCEPTED else REFUSED[name][0]
        pairs += [str(path) for path in CHAIN.write(tmp_path, name, CHAIN.odd_leaf(KEY, changes or {}), KEY)]
    command = [str(go_spiffe), str(CHAIN.write_root(tmp_path)), "cluster.local", *pairs]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    said = {name: json.loads(line) for name, line in zip(expected, lines, strict=True)}
    assert {name: "id" in answer for name, answer in said.items()} == expected, said
    assert {said[name]["id"] for name in ACCEPTED} == {URI}
