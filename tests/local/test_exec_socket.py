"""Commands over the Unix socket: real processes on the caller's own descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from local import exec_socket
from local.exec_socket import call
from mesh.errors import HeddleError, InvalidInput, NotFound, Unavailable
from tests.support.waiting import wait_for


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    ended: Future[int]

    def kill(self, number: int) -> None:
        self.process.send_signal(number)


class Engine:
    """Runs commands on this machine; knows one pod, n/p."""

    def __init__(self) -> None:
        self.started: list[Running] = []
        self.began = threading.Semaphore(0)

    def __call__(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], stdio: tuple[int, int, int]
    ) -> Running:
        if (namespace, pod) != ("n", "p"):
            raise NotFound(f"no pod {namespace}/{pod} runs here", hint="running pods: n/p")
        if container not in ("", "c"):
            raise NotFound(f"pod p has no container {container!r}")
        # As the engine's launcher does it: a test runner under nohup ignores SIGHUP, and that is inherited.
        argv = ["env", "--default-signal", *argv]
        process = subprocess.Popen(argv, stdin=stdio[0], stdout=stdio[1], stderr=stdio[2])
        running = Running(process, Future())
        threading.Thread(target=lambda: running.ended.set_result(process.wait()), daemon=True).start()
        self.started.append(running)
        self.began.release()
        return running


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hx") as folder:  # short: a socket's path has at most 107 bytes
        yield Path(folder) / "exec.sock"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    running = Engine()
    close = exec_socket.serve_in_thread(path, running)
    yield running
    close()


def test_input_output_errors_and_exit_code_are_the_callers(engine: Engine, path: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    files = [(tmp_path / name, mode) for name, mode in (("in", "rb"), ("out", "wb"), ("err", "wb"))]
    with contextlib.ExitStack() as stack:
        given, out, err = (stack.enter_context(file.open(mode)).fileno() for file, mode in files)
        assert call(path, "n", "p", "", ["sh", "-c", "cat; echo oops >&2; exit 7"], (given, out, err)) == 7
    assert (tmp_path / "out").read_text() == "hello"
    assert (tmp_path / "err").read_text() == "oops\n"


def test_only_the_owner_may_connect(engine: Engine, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_unknown_pod_and_container_have_the_engines_words(engine: Engine, path: Path) -> None:
    with pytest.raises(HeddleError, match=r"no pod n/q runs here \(running pods: n/p\)"):
        call(path, "n", "q", "", ["true"])
    with pytest.raises(HeddleError, match="has no container 'z'"):
        call(path, "n", "p", "z", ["true"])


def test_huge_output_does_not_pass_through_the_engine(engine: Engine, path: Path, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, open(os.devnull, "rb") as nothing:
        argv = [sys.executable, "-c", "import sys; sys.stdout.write('x' * 50_000_000)"]
        assert call(path, "n", "p", "", argv, (nothing.fileno(), out.fileno(), 2)) == 0
    assert (tmp_path / "out").stat().st_size == 50_000_000


def test_many_arguments_arrive_whole(engine: Engine, path: Path, tmp_path: Path) -> None:
    words = [f"{number:01000}" for number in range(500)]
    with (tmp_path / "out").open("wb") as out:
        assert call(path, "n", "p", "", ["printf", "%s\n", *words], (0, out.fileno(), 2)) == 0
    assert (tmp_path / "out").read_text().split() == words


def test_too_long_a_message_is_refused(engine: Engine, path: Path) -> None:
    with pytest.raises(InvalidInput, match="at most 1048576 bytes"):
        call(path, "n", "p", "", ["echo", "x" * (exec_socket.MAX_MESSAGE + 1)])
    assert engine.started == []


def client(path: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    # A shell that starts something in the background makes it ignore SIGINT, the test runner and its children too.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "import sys; from pathlib import Path; from local.exec_socket import call; "
    program += "sys.exit(call(Path(sys.argv[1]), 'n', 'p', '', sys.argv[2:]))"
    return subprocess.Popen([sys.executable, "-c", program, str(path), *argv], stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_when_the_client_is_killed_its_command_ends(engine: Engine, path: Path, number: signal.Signals) -> None:
    caller = client(path, ["sleep", "1000"])
    assert engine.began.acquire(timeout=60)
    begun = Path(f"/proc/{engine.started[0].process.pid}/comm")
    wait_for(lambda: begun.read_text() == "sleep\n")  # until then a hangup may still be ignored
    caller.send_signal(number)
    caller.wait()
    assert engine.started[0].ended.result(20) == -signal.SIGHUP


def test_a_command_that_ignores_the_hangup_is_killed(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(exec_socket, "HANGUP_SECONDS", 0.1)
    marker = tmp_path / "ready"
    code = "import signal, sys, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    caller = client(path, [sys.executable, "-c", code + f"open({str(marker)!r}, 'w'); time.sleep(1000)"])
    wait_for(marker.exists)
    caller.kill()
    caller.wait()
    assert engine.started[0].ended.result(20) == -signal.SIGKILL


def test_twenty_at_once(engine: Engine, path: Path) -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: codes.append(call(path, "n", "p", "", ["sh", "-c", f"exit {n}"])))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(codes) == list(range(20))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"namespace": "n", "pod": "p", "argv": []}',
        b'{"namespace": "n", "pod": "p", "argv": "ls"}',
        b'{"namespace": "n", "pod": "p", "argv": [5]}',
        b'{"namespace": "n", "pod": "p", "argv": ["true"]}',
    ],
)
def test_a_malformed_message_is_refused_and_the_next_one_served(engine: Engine, path: Path, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        answer = json.loads(connection.makefile("rb").read())
    assert answer["error"]["code"] == "invalid"
    assert call(path, "n", "p", "c", ["true"]) == 0


def test_a_client_that_says_nothing_holds_up_nobody(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_socket, "MESSAGE_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        assert b"must be complete" in connection.makefile("rb").read()


def test_without_an_engine_it_says_so(path: Path) -> None:
    with pytest.raises(Unavailable, match=r"the engine does not answer .* \(is the mesh still running\?\)"):
        call(path, "n", "p", "", ["true"])


def test_a_bug_in_the_engine_is_told_and_does_not_end_it(path: Path) -> None:
    def broken(*_: object) -> Running:
        raise KeyError("oops")

    close = exec_socket.serve_in_thread(path, broken)
    with pytest.raises(InvalidInput, match="KeyError"):
        call(path, "n", "p", "", ["true"])
    close()
