"""`python -m ca.ask`, as `heddle rotate` runs it in the ca's own pod."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ca.harness import ISSUER, ApiServer, CaProcess, TokenMint
from tests.support.waiting import wait_for


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ca.ask", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("ca")
    place = directory / "o.sock"
    place.write_text("left by a process that was killed")
    options = ("--token-issuer-keys", "api", "--token-issuer", ISSUER, "--operator-socket", str(place))
    with ApiServer(TokenMint()) as api, CaProcess(directory / "state", api, *options):
        wait_for(place.is_socket)
        yield str(place)


def test_who_may_open_the_socket_is_an_operator(place: str) -> None:
    assert stat.S_IMODE(Path(place).stat().st_mode) == 0o600
    done = ask("GET", "/v1/rotation", "", place)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["phase"] == "idle"
    tried = ask("POST", "/v1/rotation", '{"do": "start", "dryRun": true}', place)
    assert json.loads(tried.stdout)["would"]["phase"] == "distribute"


def test_what_the_ca_refuses_is_passed_on_whole(place: str) -> None:
    done = ask("POST", "/v1/rotation", '{"do": "pause"}', place)
    answer = json.loads(done.stdout)
    error = {
        "code": "conflict",
        "message": "no rotation is running",
        "hint": "`heddle rotate start` begins one",
    }  # no field: what was asked for is right, at another time
    assert (done.returncode, answer["status"], answer["error"]) == (4, 409, error)


def test_nobody_gets_a_certificate_there(place: str) -> None:
    done = ask("POST", "/v1/certificates", '{"csr": "x"}', place)
    assert (done.returncode, json.loads(done.stdout)["status"]) == (4, 403)


def test_nobody_at_home_and_wrong_usage(tmp_path: Path) -> None:
    gone = ask("GET", "/v1/rotation", "", str(tmp_path / "none"))
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "does not answer" in gone.stderr
    assert ask("DELETE", "/v1/rotation").returncode == 2
    assert ask("GET", "rotation").returncode == 2
