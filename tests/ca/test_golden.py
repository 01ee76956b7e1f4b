"""The certificates that the ca makes, as others read them: their text, and the verdicts of openssl, pkilint (RFC 5280),
PyPI's spiffe, go-spiffe, and Envoy in a real handshake."""

from __future__ import annotations

import json
import os
import subprocess
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkilint.bin import lint_pkix_cert, lint_pkix_signer_signee_cert_chain
from spiffe import TrustDomain, X509Bundle, X509Svid

from mesh.identity import Identity
from svid.material import SvidMaterial, TrustBundle
from svid.tls import check_peer, client_context
from tests.support.chains import PEM, REVIEWS, Chain, key_pem
from tests.support.envoy import RunningEnvoy
from tests.support.ports import free_port

CASES = Path(__file__).parent / "cases" / "certificates"
KEYS: dict[str, Any] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": rsa.generate_private_key(65537, 2048),
}
AUTHORITY_KEYS: dict[str, Any] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": rsa.generate_private_key(65537, 2048),
}
TYPE = "type.googleapis.com/envoy.extensions"
DNS = ("heddle-webhook.istio-system.svc", "heddle-webhook.istio-system.svc.cluster.local")
# pkilint knows the URI schemes of the web, and spiffe is none of them.
UNKNOWN_SCHEME = ("pkix.invalid_uri_syntax", 'Invalid URI syntax: "spiffe://cluster.local')


@pytest.fixture(scope="module", params=KEYS, ids=lambda kind: f"by-{kind}")
def chain(request: pytest.FixtureRequest) -> Chain:
    """Of authorities with keys of one kind."""
    return Chain(root_key=KEYS[request.param], key=AUTHORITY_KEYS[request.param])


def text_of(certificate: x509.Certificate) -> str:
    """As openssl prints it, without what is random: the signature."""
    command = ["openssl", "x509", "-noout", "-text", "-certopt", "no_sigdump", "-nameopt", "RFC2253"]
    shown = subprocess.run(command, input=certificate.public_bytes(PEM), capture_output=True, check=True).stdout
    return "".join(f"{line.rstrip()}\n" for line in shown.decode().splitlines())


def golden() -> dict[str, x509.Certificate]:
    """With keys and times that stay."""
    fixed = Chain(
        now=1_800_000_000,
        root_key=ec.derive_private_key(1001, ec.SECP256R1()),
        key=ec.derive_private_key(1002, ec.SECP256R1()),
    )
    key = ec.derive_private_key(1003, ec.SECP256R1())
    webhook = Identity("cluster.local", "istio-system", "heddle-webhook")
    return {
        "root": fixed.root,
        "intermediate": fixed.intermediate,
        "leaf": fixed.leaf(key),
        "leaf-with-dns-names": fixed.leaf(key, webhook, DNS),
    }


@pytest.mark.parametrize("name", golden())
def test_text(name: str) -> None:
    file, text = CASES / f"{name}.txt", text_of(golden()[name])
    if os.environ.get("HEDDLE_REGENERATE"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text


def test_no_text_is_stale() -> None:
    assert {file.stem for file in CASES.iterdir()} == set(golden())


@pytest.mark.parametrize("kind", KEYS)
def test_openssl(chain: Chain, kind: str, tmp_path: Path) -> None:
    leaf, _ = chain.write(tmp_path, "leaf", chain.leaf(KEYS[kind], dns_names=DNS), KEYS[kind])
    (tmp_path / "intermediate.pem").write_bytes(chain.intermediate.public_bytes(PEM))
    verify = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", chain.write_root(tmp_path)]
    for purpose in ("sslserver", "sslclient"):
        arguments = [*verify, "-purpose", purpose, "-untrusted", tmp_path / "intermediate.pem", leaf]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    done = subprocess.run([*verify, tmp_path / "intermediate.pem"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KEYS)
def test_pkilint(chain: Chain, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {}
    certificates = {"root": chain.root, "intermediate": chain.intermediate, "leaf": chain.leaf(KEYS[kind])}
    for name, certificate in certificates.items():
        files[name] = str(tmp_path / f"{name}.pem")
        Path(files[name]).write_bytes(certificate.public_bytes(PEM))
        assert lint_pkix_cert.main(["lint", "-f", "JSON", "-s", "NOTICE", files[name]]) == 1
        assert all_but_the_scheme(capsys.readouterr().out) == []
    for issuer, subject in (("root", "root"), ("root", "intermediate"), ("intermediate", "leaf")):
        pair = ["lint", "-f", "JSON", "-s", "NOTICE", files[issuer], files[subject]]
        assert lint_pkix_signer_signee_cert_chain.main(pair) == 0, capsys.readouterr().out
        capsys.readouterr()


def all_but_the_scheme(report: str) -> list[Any]:
    found = [each for result in json.loads(report)["results"] for each in result["finding_descriptions"]]
    return [each for each in found if each["code"] != UNKNOWN_SCHEME[0] or UNKNOWN_SCHEME[1] not in each["message"]]


@pytest.mark.parametrize("kind", KEYS)
def test_pypis_spiffe(chain: Chain, kind: str) -> None:
    leaf = chain.leaf(KEYS[kind])
    svid = X509Svid.parse(leaf.public_bytes(PEM) + chain.intermediate.public_bytes(PEM), key_pem(KEYS[kind]))
    assert str(svid.spiffe_id) == str(REVIEWS)
    bundle = X509Bundle.parse(TrustDomain("cluster.local"), chain.root.public_bytes(PEM))
    assert list(bundle.x509_authorities) == [chain.root]


def test_go_spiffe(go_spiffe: Path, chain: Chain, tmp_path: Path) -> None:
    pairs = [str(path) for kind, key in KEYS.items() for path in chain.write(tmp_path, kind, chain.leaf(key), key)]
    command = [str(go_spiffe), str(chain.write_root(tmp_path)), "cluster.local", *pairs]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"id": str(REVIEWS)}] * len(KEYS)
    foreign = subprocess.run([*command[:2], "other.example", *pairs], capture_output=True, text=True, check=True).stdout
    assert all("error" in json.loads(line) for line in foreign.splitlines())


@pytest.mark.parametrize("kind", KEYS)
def test_envoy(chain: Chain, kind: str, tmp_path: Path) -> None:
    """Envoy shows such a certificate, and takes ours for the identity that is in it."""
    port, admin = free_port(), free_port()
    files = chain.write(tmp_path, "server", chain.leaf(KEYS[kind]), KEYS[kind])
    ratings = Identity("cluster.local", "default", "ratings")
    key = KEYS["P-256"]
    leaf = chain.leaf(key, ratings)
    shown = leaf.public_bytes(PEM) + chain.intermediate.public_bytes(PEM)
    trusted = TrustBundle("cluster.local", 1, (chain.root.public_bytes(PEM).decode(),))
    ours = SvidMaterial(ratings, "", 0, 0, key_pem(key), shown, trusted)
    with RunningEnvoy(echoing(port, admin, files, chain.write_root(tmp_path)), tmp_path):
        connection = HTTPSConnection("127.0.0.1", port, timeout=60, context=client_context(trusted.pem, ours))
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["peer"]) == (200, str(ratings)), answer.read()
        assert check_peer(connection.sock, {REVIEWS}) == REVIEWS
        connection.close()


def echoing(port: int, admin: int, files: tuple[Path, Path], roots: Path) -> dict[str, Any]:
    """An Envoy that wants a certificate of the default namespace, and says whose it was in a header."""
    chain_file, key_file = files
    tls = {
        "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [
                {"certificate_chain": {"filename": str(chain_file)}, "private_key": {"filename": str(key_file)}}
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(roots)},
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/ns/default/"}}
                ],
            },
        },
    }
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "peer", "value": "%DOWNSTREAM_PEER_URI_SAN%"}}],
    }
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "tls",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            }
        ],
    }
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"listeners": [listener]},
    }
