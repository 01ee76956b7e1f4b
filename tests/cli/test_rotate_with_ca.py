"""`heddle rotate` and a real ca behind the engine's socket."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.cli.operated import Operated, operated
from tests.cli.run import heddle
from tests.local.command_server import CommandServer


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with operated(tmp_path_factory.mktemp("ca")) as process:
        yield process


@pytest.fixture
def asked(mesh: CommandServer, ca: Operated) -> None:
    mesh.operator.answering = ca.operator


def test_each_replica_makes_another_intermediate(ca: Operated, asked: None) -> None:
    assert heddle("rotate", "intermediate", "--dry-run").out == "would make another intermediate: ca\n"
    made = json.loads(heddle("rotate", "intermediate", "-o", "json").out)["ca"]
    assert made["old"] != made["new"]
    chain = x509.load_pem_x509_certificates(ca.enrol().chain_pem)
    assert f"{chain[1].serial_number:x}" == made["new"]


def test_a_rotation_is_tried_started_paused_and_turned_back(ca: Operated, asked: None) -> None:
    assert json.loads(heddle("rotate", "status", "-o", "json").out)["phase"] == "idle"
    tried = heddle("rotate", "start", "--dry-run")
    assert "It would begin with phase distribute and bundle 2." in tried.out, tried.err
    assert (tried.code, "n/waits: " in tried.out) == (3, True)
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
