"""What a real ca tells Prometheus, by Heddle's names and by istiod's."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from svid.client import Token, fetch
from svid.material import SvidMaterial
from svid.request import new_key_request
from tests.ca.harness import ApiServer, CaProcess, TokenMint

DAY = 86400
# The parser of the client library would add `_total` to the names of counters, which Prometheus does not.
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_VALUE = re.compile(r'="([^"]*)"')


@pytest.fixture(scope="module")
def ca(mint: TokenMint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    with ApiServer(mint) as api:
        pod = api.add_pod("shop", "web-1", "uid-1", "web")
        state = tmp_path_factory.mktemp("ca") / "state"
        with CaProcess(state, api, "--token-issuer-keys", "api", "--caller-rate", "0.05") as process:
            token = Token(mint.token("shop", "web", pod))
            for _ in range(2):
                material = fetch(process.address, process.roots, new_key_request(), token)
            ask(process, mint, json.dumps({"csr": "no request"}))
            ask(process, mint, "no JSON")
            ask(process, mint, json.dumps({"csr": "x"}), token="nonsense")
            operator = fetch(
                process.address, process.roots, new_key_request(), Token(mint.token("istio-system", "heddle-operator"))
            )
            revoke(process, operator, material.serial)
            yield process


def ask(ca: CaProcess, mint: TokenMint, body: str, token: str = "") -> None:
    bearer = token or mint.token("istio-system", "heddle-operator")
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {bearer}"}
    ca.request("POST", "/v1/certificates", body.encode(), headers)


def revoke(ca: CaProcess, by: SvidMaterial, serial: str) -> None:
    body = json.dumps({"do": "revoke", "serial": serial}).encode()
    assert ca.request("POST", "/v1/revocations", body, {"Content-Type": "application/json"}, by)[0] == 200


@pytest.fixture(scope="module")
def samples(ca: CaProcess) -> dict[tuple[str, str], float]:
    """By name, and the values of its labels."""
    return {
        (name, ",".join(_VALUE.findall(labels))): float(value)
        for name, labels, value in _SAMPLE.findall(ca.plain("/metrics")[1])
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("csr_count", 6),
        ("success_cert_issuance_count", 3),
        ("authentication_failure_count", 1),
        ("csr_parsing_err_count", 1),
        ("csr_sign_err_count", 0),
    ],
)
def test_counts_by_istios_names(samples: dict[tuple[str, str], float], name: str, value: int) -> None:
    assert samples[f"citadel_server_{name}", ""] == value


def test_when_the_authorities_end(samples: dict[tuple[str, str], float]) -> None:
    now = time.time()
    for name, days in (("root_cert", 3652), ("cert_chain", 30)):
        end = samples[f"citadel_server_{name}_expiry_timestamp", ""]
        assert end - now == pytest.approx(days * DAY, abs=120)
        assert samples[f"citadel_server_{name}_expiry_seconds", ""] == pytest.approx(end - now, abs=120)
    serving = samples["heddle_ca_certificate_expiry_timestamp_seconds", ""]
    assert serving - now == pytest.approx(DAY, abs=120)


def test_a_rotation_that_was_never_begun_is_idle(samples: dict[tuple[str, str], float]) -> None:
    assert samples["heddle_ca_rotation_phase_since_timestamp_seconds", "false,idle"] == 0


def test_when_the_first_workload_s_certificate_ends(samples: dict[tuple[str, str], float]) -> None:
    name, now = "heddle_ca_workload_certificate_expiry_timestamp_seconds", time.time()
    assert {holder for known, holder in samples if known == name} == {"agent"}
    assert samples[name, "agent"] - now == pytest.approx(DAY, abs=120)


def test_refusals_by_reason_and_what_is_revoked(samples: dict[tuple[str, str], float]) -> None:
    assert samples["heddle_ca_requests_refused_total", "unauthenticated"] == 1
    assert samples["heddle_ca_requests_refused_total", "invalid"] == 2
    assert samples["heddle_ca_revoked_certificates", ""] == samples["heddle_ca_revocation_lists", ""] == 1
