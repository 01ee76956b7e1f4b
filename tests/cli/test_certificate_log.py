"""`heddle certificates verify-log` on the log of a real ca."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from svid.client import Token, fetch
from svid.request import new_key_request
from tests.ca.harness import ApiServer, CaProcess, TokenMint
from tests.cli.run import heddle


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, list[str]]]:
    """A ca's state after two starts, the second ended by kill -9, its output, and the serials that clients have."""
    state = tmp_path_factory.mktemp("ca") / "state"
    mint, serials = TokenMint(), []
    with ApiServer(mint) as api:
        pod = api.add_pod("shop", "web-1", "uid-1", "web")
        for _ in range(2):
            with CaProcess(state, api, "--token-issuer-keys", "api", env=POD) as ca:
                first = fetch(ca.address, ca.roots, new_key_request(), Token(mint.token("shop", "web", pod, jti="t-1")))
                second = fetch(ca.address, ca.roots, new_key_request(), first, pod=pod)
                serials += [first.serial, second.serial]
                ca.kill()
    return state, ca.log.read_text(), serials


POD = {"POD_NAMESPACE": "istio-system", "POD_NAME": "heddle-ca-1", "POD_UID": "ca-uid"}


@pytest.fixture
def state(written: tuple[Path, str, list[str]], tmp_path: Path) -> Path:
    """A copy to tamper with."""
    for path in written[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_whole(state: Path, written: tuple[Path, str, list[str]]) -> None:
    done = heddle("certificates", "verify-log", str(state / "audit.log"))
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (state / "audit.log").read_text().splitlines()]
    said, anchor = done.out.splitlines()
    assert said == f"whole: {len(lines)} lines"
    assert heddle("certificates", "verify-log", str(state / "audit.log"), "--expect", anchor).code == 0
    issued = {line["serial"]: line for line in lines if line["event"] == "issue"}
    assert set(written[2]) <= issued.keys()
    first, second = (issued[serial] for serial in written[2][:2])
    assert (first["caller"], first["proof"]) == ("token", "t-1")
    assert (second["caller"], second["proof"]) == ("certificate", written[2][0])
    assert first["pod"] == {"namespace": "shop", "name": "web-1", "uid": "uid-1", "node": "node-1"}
    assert [line["replica"] for line in lines if line["event"] == "start"] == ["heddle-ca-1"] * 2


def test_cut_although_only_the_end_is_gone(state: Path) -> None:
    log = state / "audit.log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    done = heddle("certificates", "verify-log", str(log))
    assert done.code == 1
    assert "it was cut" in done.out


def test_changed_line_is_named(state: Path) -> None:
    log = state / "audit.log"
    log.write_text(log.read_text().replace("sa/web", "sa/wob", 1))
    done = heddle("certificates", "verify-log", str(log), "-o", "json")
    assert done.code == 1
    at = next(n for n, line in enumerate(log.read_text().splitlines(), 1) if "sa/wob" in line)
    assert json.loads(done.out)["problem"].startswith(f"audit.log:{at + 1}: ")
    assert f"line {at} was changed" in json.loads(done.out)["problem"]


def test_what_went_to_standard_output(
    written: tuple[Path, str, list[str]], monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    anchor = heddle("certificates", "verify-log", str(state / "audit.log")).out.splitlines()[1]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(written[1].encode())))
    assert heddle("certificates", "verify-log", "-", "--expect", anchor).out.splitlines()[1] == anchor


def test_said_clearly(tmp_path: Path) -> None:
    done = heddle("certificates", "verify-log", str(tmp_path / "none"))
    assert (done.code, "there is no audit log" in done.err) == (1, True)
    assert "--expect: 'x' is not N:HASH" in heddle("certificates", "verify-log", "-", "--expect", "x").err
