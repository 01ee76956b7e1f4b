"""The real `heddle` script as a process of its own: help, mistakes, and no mesh to talk to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import COMMANDS
from cli.main import heddle as GROUP
from local.linux import die_with_parent
from tests.cli import run

HEDDLE = str(Path(sys.executable).with_name("heddle"))
ROOT = Path(__file__).resolve().parents[2]
GATEWAY = """apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  selector: {istio: ingressgateway}
  servers: [{hosts: ['*'], port: {number: 80, name: http, protocol: HTTP}}]
"""


def heddle(*words: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HEDDLE_STATE": str(state or "/nonexistent/heddle")}
    return subprocess.run([HEDDLE, *words], env=env, input="", capture_output=True, text=True, check=False, timeout=60)


def sentence(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line that it said; no traceback, nothing on standard output."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("heddle: ")
    return line.removeprefix("heddle: ")


def test_help_lists_every_command() -> None:
    done = heddle("--help")
    assert done.returncode == 0
    listed = done.stdout.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines() if line[2:3].strip()] == sorted(COMMANDS)


def imported(*words: str) -> set[str]:
    program = "import sys, json\nfrom cli.main import heddle\nheddle(sys.argv[1:], standalone_mode=False)\n"
    program += "sys.stderr.write(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, input="")
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


def test_help_loads_nothing_heavy() -> None:
    assert not {"pydantic", "yaml", "local", "flask", "cryptography", "structlog"} & imported("--help")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_the_help_that_the_list_shows(name: str) -> None:
    command = GROUP.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(1000) == COMMANDS[name][1]


@pytest.mark.parametrize("words", [["validate", "-f", "-"], ["inject", "--help"]])
def test_what_works_offline_needs_nothing_of_linux(words: list[str]) -> None:
    program = "import sys\nfor name in ('fcntl', 'pwd', 'grp', 'resource'): sys.modules[name] = None\n"
    program += "sys.argv[0] = 'heddle'\nfrom cli.main import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], input=GATEWAY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_validate_needs_no_rights_of_root() -> None:
    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", HEDDLE, "validate", "-f", "-"]
    done = subprocess.run(words, input=GATEWAY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option"),
        (["status", "--nonsense"], "No such option"),
        (["status", "-o", "xml"], "is not one of"),
        (["status", "--wait", "-1"], "not in the range"),
        (["local", "up"], "Missing option '-f'"),
        (["local", "up", "-f", "x", "--http-port", "70000"], "not in the range"),
        (["local", "up", "-f", "x", "--http-port", "http"], "not a valid int"),
        (["local", "exec", "pod"], "Missing argument"),
        (["local", "control-plane", "explode", "ca"], "is not one of"),
        (["config", "pod", "everything"], "is not one of"),
    ],
)
def test_a_wrong_command_line_is_2_with_the_usage(words: list[str], says: str) -> None:
    done = run.heddle(*words)
    assert done.code == 2
    assert says in done.err
    assert "Usage: " in done.err


WITHOUT_A_MESH = [
    ["status"],
    ["status", "-o", "json"],
    ["certificates"],
    ["config", "pod", "routes"],
    ["local", "status"],
    ["local", "exec", "pod", "--", "ls"],
    ["local", "logs", "pod"],
    ["local", "down"],
    ["local", "control-plane", "stop", "ca"],
]


@pytest.mark.parametrize("words", WITHOUT_A_MESH, ids=" ".join)
def test_without_a_mesh_it_says_how_to_start_one(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_STATE", f"{tmp_path}/state")
    done = run.heddle(*words)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"heddle: no mesh runs here: nothing answers at {tmp_path}/state "
        "(start one with `heddle local up -f DIR`, or name its directory in HEDDLE_STATE)\n"
    )


def test_a_socket_that_nobody_listens_at_is_no_mesh(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "engine.sock"))
    assert "no mesh runs here" in sentence(heddle("status", state=tmp_path))


def up(*words: str, state: Path) -> str:
    return sentence(heddle("local", "up", *words, state=state))


def test_up_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert "-f: there is no file or directory" in up("-f", str(tmp_path / "none"), state=state)
    (tmp_path / "empty").mkdir()
    assert "-f: no manifest in" in up("-f", str(tmp_path / "empty"), state=state)
    (tmp_path / "a.yaml").write_text("")
    good = ["-f", str(tmp_path / "a.yaml")]
    (tmp_path / "images.yaml").write_text("images: {}")
    assert "images.yaml has no list" in up(*good, "--images", str(tmp_path / "images.yaml"), state=state)
    assert "--certificate-ttl: '5' has no unit" in up(*good, "--certificate-ttl", "5", state=state)
    assert "too long for the sockets" in up(*good, state=tmp_path / ("x" * 100))
    assert "would be emptied" in up(*good, state=tmp_path)
    for detach in ([], ["-d"]):
        assert "would be emptied" in up(*good, *detach, state=tmp_path)
    assert not state.exists()


@pytest.mark.root
def test_up_on_a_port_that_is_taken_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    state = tmp_path / "state"
    with socket.create_server(("127.0.0.1", 0)) as other:
        words = ["-f", str(tmp_path / "a.yaml"), "--https-port", "0", "--http-port", str(other.getsockname()[1])]
        assert "choose another with --http-port PORT" in up(*words, state=state)
    assert not state.exists()


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_twice_and_ended_before_it_is_ready(short: Path, number: signal.Signals) -> None:
    (short / "a.yaml").write_text("")
    words = ["-f", str(short / "a.yaml"), "--http-port", "0", "--https-port", "0"]
    process = subprocess.Popen(
        [HEDDLE, "local", "up", *words],
        env={**os.environ, "HEDDLE_STATE": str(short / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent,
    )
    wait_until((short / "state" / "engine.sock").exists)
    assert "a mesh is already running in" in up(*words, state=short / "state")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "ending: pods first, then the control plane"
    assert not (short / "state").exists()


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hu") as folder:  # a socket's path has at most 107 bytes
        yield Path(folder)


def wait_until(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(2000):
        if condition():
            return
        tick.wait(0.02)
    pytest.fail("it did not happen")
