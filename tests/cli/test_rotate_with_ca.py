"""`heddle rotate` and a real ca behind the engine's socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from svid.client import Token, fetch
from svid.material import SvidMaterial
from svid.request import new_key_request
from tests.ca.harness import ISSUER, ApiServer, CaProcess, TokenMint
from tests.cli.run import heddle
from tests.local.command_server import CommandServer


class OperatorOf:
    """Passes on to a ca what the engine is asked for, with the operator's certificate."""

    def __init__(self, ca: CaProcess, material: SvidMaterial) -> None:
        self._ca, self._material = ca, material

    def get(self, service: str, path: str) -> tuple[int, bytes]:
        return self._ask("GET", service, path)

    def post(self, service: str, path: str, body: bytes) -> tuple[int, bytes]:
        return self._ask("POST", service, path, body)

    def _ask(self, method: str, service: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        assert service == "ca"
        status, answer, _ = self._ca.request(method, path, body, {"Content-Type": "application/json"}, self._material)
        return status, json.dumps(answer).encode()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaProcess]:
    mint = TokenMint()
    keys = ("--token-issuer-keys", "api", "--token-issuer", ISSUER)
    with ApiServer(mint) as api, CaProcess(tmp_path_factory.mktemp("ca") / "state", api, *keys) as process:
        token = mint.token("istio-system", "heddle-operator")
        process.operator = OperatorOf(process, fetch(process.address, process.roots, new_key_request(), Token(token)))
        yield process


@pytest.fixture
def asked(mesh: CommandServer, ca: CaProcess) -> None:
    mesh.operator.answering = ca.operator


def test_a_rotation_is_tried_started_paused_and_turned_back(ca: CaProcess, asked: None, tmp_path: Path) -> None:
    assert json.loads(heddle("rotate", "status", "-o", "json").out)["phase"] == "idle"
    tried = heddle("rotate", "start", "--dry-run")
    assert "It would begin with phase distribute and bundle 2." in tried.out, tried.err
    assert json.loads(heddle("rotate", "status", "-o", "json").out)["phase"] == "idle"

    started = heddle("rotate", "start", "-y", "--window", "5m")
    assert started.code == 0, started.err
    assert "phase 1 of 6, distribute" in started.out
    again = heddle("rotate", "start", "-y")
    assert (again.code, "under way already" in again.err) == (0, True)

    assert "PAUSED" in heddle("rotate", "pause").out
    assert heddle("rotate", "status", "--wait", "0").code == 3
    assert "PAUSED" not in heddle("rotate", "resume").out
    early = heddle("rotate", "finish", "-y")
    assert early.code == 1
    assert "no window to cut short in phase distribute" in early.err

    assert heddle("rotate", "exclude", "-y", "n/never").code == 0
    assert "excluded, not waited for: n/never" in heddle("rotate", "status").out
    assert heddle("rotate", "include", "n/never").code == 0

    back = heddle("rotate", "rollback", "-y")
    assert back.code == 0, back.err
    assert "going back to the old root" in back.out
    refused = heddle("rotate", "start", "-y")
    assert refused.code == 1
    assert "being rolled back" in refused.err
