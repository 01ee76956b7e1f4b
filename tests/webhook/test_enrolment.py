"""The webhook with its certificate from the real ca, as it runs in a mesh."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from svid.tls import peer_identity
from tests.ca import harness as ca
from tests.support.ports import free_port
from tests.webhook.harness import ROOT, ApiServer, WebhookProcess, namespace


def test_the_certificate_is_the_cas_with_the_name_that_api_servers_check(tmp_path: Path) -> None:
    mint = ca.TokenMint()
    token = tmp_path / "token"
    token.write_text(mint.token("istio-system", "heddle-webhook"))
    api = ApiServer([namespace("default", istio_injection="enabled")])
    with ca.ApiServer(mint) as cas_api, ca.CaProcess(tmp_path / "ca", cas_api) as authority:
        roots = tmp_path / "ca" / "roots.pem"
        enrol = [
            "--ca-address",
            f"127.0.0.1:{authority.port}",
            "--trust-bundle",
            str(roots),
            "--token-file",
            str(token),
        ]
        webhook = WebhookProcess(api.url, enrol=enrol, root_pem=authority.roots).ready()
        try:
            with webhook.connect() as connection:
                assert str(peer_identity(connection)) == "spiffe://cluster.local/ns/istio-system/sa/heddle-webhook"
            assert "heddle_webhook_certificate_expiry_timestamp_seconds 1." in webhook.health("/metrics")[1]
        finally:
            webhook.close()
            api.close()


def test_without_the_ca_it_says_so_and_takes_no_connection(tmp_path: Path) -> None:
    token, roots = tmp_path / "token", tmp_path / "roots.pem"
    token.write_text("x")
    mint = ca.TokenMint()
    api = ApiServer([])
    with ca.ApiServer(mint) as cas_api, ca.CaProcess(tmp_path / "ca", cas_api) as authority:
        roots.write_text(authority.roots)
    enrol = ["--ca-address", f"127.0.0.1:{free_port()}", "--trust-bundle", str(roots), "--token-file", str(token)]
    webhook = WebhookProcess(api.url, enrol=enrol, root_pem=roots.read_text())
    try:
        while not (answer := webhook.health("/readyz"))[1].startswith("no certificate yet: the ca"):
            assert answer[0] in (0, 503)
        assert webhook.health("/healthz")[0] == 200
        with pytest.raises((ssl.SSLError, OSError)):
            webhook.connect()
        assert webhook.health("/healthz")[0] == 200
    finally:
        webhook.close()
        api.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "nonsense"], "'nonsense' is not host:port"),
        (["--certificate-file", "x"], "--certificate-file and --key-file go together"),
    ],
)
def test_what_cannot_be_started(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "webhook", "--kube-api", "http://127.0.0.1:1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert message in done.stdout
