"""Revocation over HTTP, by a real ca: who may, what is refused afterwards, and what the audit log says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ca.audit import files_of, lines_of
from svid.client import Refused, Token, fetch, fetch_bundle
from svid.keeper import enrolment
from svid.material import SvidMaterial
from svid.request import new_key_request
from tests.ca.harness import ApiServer, CaProcess, TokenMint


@pytest.fixture(scope="module")
def api(mint: TokenMint) -> Iterator[ApiServer]:
    with ApiServer(mint) as server:
        server.add_pod("shop", "web-1", "uid-1", "web")
        yield server


@pytest.fixture(scope="module")
def ca(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    with CaProcess(tmp_path_factory.mktemp("ca") / "state", api, "--token-issuer-keys", "api") as process:
        yield process


@pytest.fixture(scope="module")
def operator(ca: CaProcess, mint: TokenMint) -> SvidMaterial:
    return fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("istio-system", "heddle-operator")))


def web(ca: CaProcess, api: ApiServer, mint: TokenMint) -> SvidMaterial:
    pod = api.add_pod("shop", "web-1", "uid-1", "web")
    return fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("shop", "web", pod)))


def post(ca: CaProcess, by: SvidMaterial, **body: Any) -> tuple[int, Any]:
    raw, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    return ca.request("POST", "/v1/revocations", raw, headers, by)[:2]


def test_a_serial(ca: CaProcess, api: ApiServer, mint: TokenMint, operator: SvidMaterial, tmp_path: Path) -> None:
    bad = web(ca, api, mint)
    before = fetch_bundle(ca.address, ca.roots)
    status, body = post(ca, operator, do="revoke", serial=bad.serial, reason="keyCompromise")
    assert (status, body["entries"][-1]["reason"], body["listed"]) == (200, "keyCompromise", True)
    bundle = fetch_bundle(ca.address, ca.roots)
    assert bundle.revision > before.revision
    assert (bundle.sequence, len(bundle.crls)) == (before.sequence, 1)
    pod = api.add_pod("shop", "web-1", "uid-1", "web")
    with pytest.raises(Refused, match=f"{bad.serial} has been revoked"):
        fetch(ca.address, ca.roots, new_key_request(), bad, pod=pod)
    token = tmp_path / "token"
    token.write_text(mint.token("shop", "web", pod))
    again = enrolment(ca.address, roots=lambda: ca.roots, token_file=token, pod=pod)(bad)  # recovers by its token
    assert again.serial != bad.serial
    assert again.bundle == bundle
    status, body = post(ca, operator, do="restore", serial=bad.serial)
    assert (status, body["entries"]) == (200, [])
    assert fetch(ca.address, ca.roots, new_key_request(), bad, pod=pod).serial


def test_an_identity_and_the_audit_log(ca: CaProcess, api: ApiServer, mint: TokenMint, operator: SvidMaterial) -> None:
    bad, name = web(ca, api, mint), "spiffe://cluster.local/ns/shop/sa/web"
    status, body = post(ca, operator, do="revoke", identity=name)
    assert status == 200
    assert bad.serial in body["entries"][-1]["serials"]
    with pytest.raises(Refused, match="sa/web has been revoked"):
        web(ca, api, mint)
    assert ca.request("GET", "/v1/revocations", material=operator)[1] == body
    assert post(ca, operator, do="restore", identity=name)[0] == 200
    assert web(ca, api, mint).serial
    lines = [json.loads(line) for _, line in lines_of(files_of(ca.state / "audit.log"))]
    [revoke] = [line for line in lines if line["event"] == "revoke" and line["identity"]]
    assert bad.serial in revoke["serials"]
    assert revoke["by"] == str(operator.identity)
    assert [line["name"] for line in lines if line["event"] == "restore"][-1] == name


def test_only_for_operators(ca: CaProcess, api: ApiServer, mint: TokenMint) -> None:
    someone = web(ca, api, mint)
    assert post(ca, someone, do="revoke", serial="ab")[0] == 403
    assert ca.request("GET", "/v1/revocations", material=someone)[0] == 403
    assert ca.request("GET", "/v1/revocations")[0] == 401


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "do"),
        ({"do": "revoke"}, 400, "serial"),
        ({"do": "revoke", "serial": "xyz"}, 400, "serial"),
        ({"do": "revoke", "serial": "ab", "pod": "a/b"}, 400, "serial"),
        ({"do": "revoke", "serial": "ab", "reason": "bored"}, 400, "reason"),
        ({"do": "revoke", "identity": "spiffe://elsewhere/ns/a/sa/b"}, 400, "identity"),
        ({"do": "revoke", "identity": "spiffe://cluster.local/ns/istio-system/sa/heddle-ca"}, 403, "identity"),
        ({"do": "revoke", "pod": "web-1"}, 400, "pod"),
        ({"do": "revoke", "pod": "shop/none"}, 404, "pod"),
        ({"do": "revoke", "serial": "ab", "serials": ["ab"]}, 400, "serials"),
        ({"do": "revoke", "serial": "ab", "more": 1}, 400, "more"),
        ({"do": "restore", "serial": "abcdef"}, 404, None),
    ],
)
def test_wrong_wishes(ca: CaProcess, operator: SvidMaterial, body: Any, status: int, field: str | None) -> None:
    code, said = post(ca, operator, **body)
    assert (code, said["error"].get("field")) == (status, field)
