"""The ca as it runs: gunicorn, TLS 1.3, tokens of a real issuer, pods of an API server, judged by `openssl`."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.errors import HeddleError
from mesh.identity import Identity
from svid.client import Refused, Token, Unreachable, fetch, fetch_bundle, fetch_ledger
from svid.material import PodRef, SvidMaterial
from svid.request import new_key_request
from svid.spiffe_bundle import parse_spiffe_bundle
from tests.ca.harness import ApiServer, CaProcess, TokenMint, unsigned


def issue(ca: CaProcess, token: str, **more: object) -> SvidMaterial:
    return fetch(ca.address, ca.roots, new_key_request(), Token(token), **more)  # type: ignore[arg-type]


def eventually_refused(attempt: Callable[[], object]) -> Refused:
    """The refusal, as soon as the watch has brought the news."""
    for _ in range(500):
        try:
            attempt()
        except Refused as refused:
            return refused
        time.sleep(0.01)
    raise AssertionError("it was never refused")


def operator(ca: CaProcess, mint: TokenMint) -> SvidMaterial:
    return issue(ca, mint.token("istio-system", "heddle-operator"))


def test_issues_by_token_and_openssl_agrees(ca: CaProcess, mint: TokenMint, pod: PodRef, tmp_path: Path) -> None:
    material = issue(ca, mint.token("default", "reviews", pod))
    assert material.identity == Identity("cluster.local", "default", "reviews")
    assert 86390 <= material.not_after - time.time() <= 86400
    leaf, intermediate = material.chain_pem.decode().split("-----END CERTIFICATE-----\n")[:2]
    end = "-----END CERTIFICATE-----\n"
    (tmp_path / "leaf.pem").write_text(leaf + end)
    (tmp_path / "intermediate.pem").write_text(intermediate + end)
    for purpose in ("sslserver", "sslclient"):
        verify = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose, "-CAfile"]
        subprocess.run(
            [*verify, ca.state / "roots.pem", "-untrusted", tmp_path / "intermediate.pem", tmp_path / "leaf.pem"],
            check=True,
            capture_output=True,
        )
    shown = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "leaf.pem", "-noout", "-text"], check=True, capture_output=True, text=True
    ).stdout
    assert (
        "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/default/sa/reviews\n"
        in shown
    )
    assert "CA:FALSE" in shown
    assert "Digital Signature\n" in shown


def test_renews_by_certificate(ca: CaProcess, mint: TokenMint, pod: PodRef) -> None:
    first = issue(ca, mint.token("default", "reviews", pod))
    second = fetch(ca.address, first.bundle.pem, new_key_request(), first, pod=pod)
    assert second.identity == first.identity
    assert second.serial != first.serial
    assert second.key_pem != first.key_pem


def test_renewal_needs_the_pod(ca: CaProcess, mint: TokenMint, api: ApiServer) -> None:
    pod = api.add_pod("default", "short-lived", "uid-2", "reviews")
    material = issue(ca, mint.token("default", "reviews", pod))
    with pytest.raises(Refused, match="X-Heddle-Pod is missing") as missing:
        fetch(ca.address, ca.roots, new_key_request(), material)
    assert missing.value.status == 403
    with pytest.raises(Refused, match="is not <namespace>/<name>/<uid>"):
        fetch(ca.address, ca.roots, new_key_request(), material, pod=PodRef("a b", "..", "%"))
    other = api.add_pod("default", "other-account", "uid-3", "ratings")
    with pytest.raises(Refused, match="was not issued to pod default/other-account"):
        fetch(ca.address, ca.roots, new_key_request(), material, pod=other)
    with pytest.raises(Refused, match="does not run as default/reviews"):
        issue(ca, mint.token("default", "reviews", other))
    elsewhere = api.add_pod("elsewhere", "same-account-name", "uid-2", "reviews")
    with pytest.raises(Refused, match="does not run as default/reviews"):
        fetch(ca.address, ca.roots, new_key_request(), material, pod=elsewhere)
    api.add_pod("default", "short-lived", "uid-2", "ratings")
    refused = eventually_refused(lambda: fetch(ca.address, ca.roots, new_key_request(), material, pod=pod))
    assert "does not run as default/reviews" in str(refused)
    api.remove_pod("default", "short-lived")
    refused = eventually_refused(lambda: fetch(ca.address, ca.roots, new_key_request(), material, pod=pod))
    assert "does not exist" in str(refused)
    assert refused.status == 403


def test_pod_replaced_under_the_same_name(ca: CaProcess, mint: TokenMint, api: ApiServer) -> None:
    old = api.add_pod("default", "stateful-0", "uid-old", "reviews")
    token = mint.token("default", "reviews", old)
    api.add_pod("default", "stateful-0", "uid-new", "reviews")
    assert "uid-old does not exist" in str(eventually_refused(lambda: issue(ca, token)))


def test_api_server_that_fails_is_no_permission(ca: CaProcess, mint: TokenMint, api: ApiServer) -> None:
    pod = PodRef("default", "never-seen", "uid-9")
    api.broken = True
    try:
        with pytest.raises(Refused) as refused:
            issue(ca, mint.token("default", "reviews", pod))
        assert refused.value.status == 503
    finally:
        api.broken = False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exp": 1}, "expired"),
        ({"nbf": 4102444800}, "not valid yet"),
        ({"iat": 4102444800}, "not valid yet"),
        ({"exp": "soon"}, "not a number"),
        ({"exp": None}, "exp"),
        ({"aud": ["vault"]}, "audience"),
        ({"aud": None}, "aud"),
        ({"iss": "https://elsewhere"}, "issuer"),
        ({"sub": "reviews"}, "not a service account"),
        ({"sub": "system:serviceaccount:default:ratings"}, "disagree"),
        ({"kubernetes.io": None}, "disagree"),
    ],
)
def test_refuses_tokens(ca: CaProcess, mint: TokenMint, pod: PodRef, change: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        issue(ca, mint.token("default", "reviews", pod, **change))
    assert refused.value.status == 401


def test_refuses_foreign_and_unsigned_tokens(ca: CaProcess, mint: TokenMint, pod: PodRef) -> None:
    claims = mint.claims("default", "reviews", pod)
    forged = [
        TokenMint().sign(claims),  # another key under the same key id
        TokenMint("RS256").sign(claims),
        unsigned(claims, {"alg": "none", "kid": "k1"}),
        unsigned(claims, {"alg": "HS256", "kid": "k1"}),
        mint.sign(claims, key_id="unknown"),
        "not.a.token",
        "x" * 7000,
    ]
    for token in forged:
        with pytest.raises(Refused) as refused:
            issue(ca, token)
        assert refused.value.status == 401


def test_unbound_token_is_for_the_control_plane_only(ca: CaProcess, mint: TokenMint) -> None:
    with pytest.raises(Refused, match="not bound to a pod") as refused:
        issue(ca, mint.token("default", "reviews"))
    assert refused.value.status == 403
    webhook = issue(ca, mint.token("istio-system", "heddle-webhook"))
    assert b"BEGIN CERTIFICATE" in webhook.chain_pem
    again = fetch(ca.address, ca.roots, new_key_request(), webhook)
    assert again.identity == Identity("cluster.local", "istio-system", "heddle-webhook")


def test_operators_read_the_ledger(ca: CaProcess, mint: TokenMint, pod: PodRef) -> None:
    material = issue(ca, mint.token("default", "reviews", pod), ttl_seconds=600)
    listed = fetch_ledger(ca.address, operator(ca, mint))
    assert isinstance(listed, dict)
    (record,) = [entry for entry in listed["certificates"] if entry["serial"] == material.serial]
    assert record["pod"] == {"namespace": "default", "name": "reviews-1", "uid": "uid-1"}
    assert record["node"] == "node-1"
    assert record["state"] == "issued"
    assert record["caller"] == "token"
    assert 290 <= record["secondsToRenewal"] <= 300
    assert any(entry["caller"] == "self" for entry in listed["certificates"])
    with pytest.raises(Refused, match="not an operator"):
        fetch_ledger(ca.address, material)
    status, body, _ = ca.request("GET", "/v1/certificates")
    assert (status, body["error"]["code"]) == (401, "unauthenticated")


def test_bundle_is_public(ca: CaProcess) -> None:
    bundle = fetch_bundle(ca.address, ca.roots)
    assert (bundle.trust_domain, bundle.sequence, bundle.pem) == ("cluster.local", 1, ca.roots)


def test_spiffe_bundle_endpoint(ca: CaProcess) -> None:
    status, answer, headers = ca.request("GET", "/v1/spiffe-bundle")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    read = parse_spiffe_bundle(json.dumps(answer), "cluster.local")
    assert ("".join(read.roots), read.sequence, read.refresh_hint) == (ca.roots, 1, 300)


def test_go_spiffe_fetches_the_bundle_by_https_spiffe(ca: CaProcess, go_federation: Path, tmp_path: Path) -> None:
    """SPIFFE Federation section 5.2.2: the server shows an X509-SVID, the client none."""
    known = tmp_path / "bundle.json"
    known.write_text(json.dumps(ca.request("GET", "/v1/spiffe-bundle")[1]))
    url = f"https://127.0.0.1:{ca.port}/v1/spiffe-bundle"

    def fetched(server: str) -> subprocess.CompletedProcess[str]:
        command = [go_federation, "fetch", "cluster.local", url, f"spiffe://cluster.local/ns/istio-system/sa/{server}"]
        return subprocess.run([*command, known], capture_output=True, text=True, check=False)

    said = fetched("heddle-ca")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["sequence"] == 1
    assert fetched("somebody").returncode != 0


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "code"),
    [
        ("POST", "/v1/certificates", b"{", "application/json", 400, "invalid"),
        ("POST", "/v1/certificates", b"[]", "application/json", 400, "invalid"),
        ("POST", "/v1/certificates", b'{"csr": 1}', "application/json", 400, "invalid"),
        ("POST", "/v1/certificates", b'{"csr": "x", "ca": true}', "application/json", 400, "invalid"),
        ("POST", "/v1/certificates", b'{"csr": "x", "ttlSeconds": -1}', "application/json", 400, "invalid"),
        ("POST", "/v1/certificates", b'{"csr": "x", "ttlSeconds": true}', "application/json", 400, "invalid"),
        ("POST", "/v1/certificates", b'{"csr": "\xff"}', "application/json", 400, "invalid"),
        ("POST", "/v1/certificates", b'{"csr": "x"}', "application/x-www-form-urlencoded", 415, "unsupported"),
        ("POST", "/v1/certificates", b"x" * 100_000, "application/json", 413, "too-large"),
        ("PUT", "/v1/certificates", b"{}", "application/json", 405, "method-not-allowed"),
        ("GET", "/v2/certificates", None, "", 404, "not-found"),
        ("GET", "/v1/certificates/..%2f..", None, "", 404, "not-found"),
    ],
)
def test_bad_requests(
    ca: CaProcess, method: str, path: str, body: bytes | None, kind: str, status: int, code: str
) -> None:
    got, answer, _ = ca.request(method, path, body, {"Content-Type": kind} if kind else {})
    assert (got, answer["error"]["code"]) == (status, code)


def test_garbage_request_with_a_good_token(ca: CaProcess, mint: TokenMint, pod: PodRef) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {mint.token('default', 'reviews', pod)}"}
    status, answer, _ = ca.request("POST", "/v1/certificates", json.dumps({"csr": "hello"}).encode(), headers)
    assert (status, answer["error"]["field"]) == (400, "csr")


def test_tls_1_2_is_not_spoken(ca: CaProcess) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        ca.request("GET", "/v1/bundle", context=context)


def test_certificate_of_another_authority_is_refused_by_tls(
    ca: CaProcess, api: ApiServer, mint: TokenMint, pod: PodRef, tmp_path: Path
) -> None:
    with CaProcess(tmp_path / "other", api) as other:
        foreign = issue(other, mint.token("default", "reviews", pod))
        with pytest.raises(Unreachable):
            fetch(ca.address, ca.roots, new_key_request(), foreign, pod=pod)
        with pytest.raises(Unreachable, match="does not verify"):
            fetch(other.address, ca.roots, new_key_request(), Token("secret"))


def test_server_that_is_not_the_ca_gets_no_token(ca: CaProcess) -> None:
    address = type(ca.address)("127.0.0.1", ca.port, Identity("cluster.local", "istio-system", "somebody"))
    with pytest.raises(HeddleError, match="is not the ca"):
        fetch(address, ca.roots, new_key_request(), Token("secret"))


def test_health_and_metrics(ca: CaProcess) -> None:
    assert ca.plain("/healthz")[0] == 200
    status, text = ca.plain("/metrics")
    assert status == 200
    assert 'heddle_ca_certificates_issued_total{caller="token"}' in text
    assert ca.plain("/nothing")[0] == 404


def test_log_is_json_without_secrets(ca: CaProcess, mint: TokenMint, pod: PodRef) -> None:
    token = mint.token("default", "reviews", pod)
    issue(ca, token)
    lines = ca.log.read_text().splitlines()
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert not any(token in line or "PRIVATE KEY" in line for line in lines)
