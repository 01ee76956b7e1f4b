"""The process that owns a test cluster's processes, so that nothing of it stays, however the test run ends.

Run as `python -S -m tests.cluster.keeper ORDER` (see `processes.Processes`, which speaks to it). Two processes: the
outer one waits and cleans up; the inner one starts the components, as its children, which the kernel kills with it.
When the test run ends, also by SIGKILL, the inner one reads the end of its input and ends; the outer one then removes
the state directory and the cgroups. With `isolate` the inner one is process 1 of new PID, mount, network, IPC, UTS and
cgroup namespaces: with it end all containers, mounts, interfaces and rules. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from local import linux
from tests.cluster import namespaces


def main() -> int:
    """Make the state directory, run the inner process, clean up after it."""
    order = json.loads(sys.argv[1])
    state = Path(order["state"])
    held = os.open(state.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)  # while it is held, nobody sweeps this state away
    state.mkdir(mode=0o700)
    listener = socket.create_server(("127.0.0.1", 0))  # before there is another network
    try:
        if order["isolate"]:
            namespaces.make_cgroups(state.name)
            linux.unshare(linux.CLONE_NEWPID)  # for the child
        pid = os.fork()
        if pid == 0:
            _inner(order["isolate"], state, listener)
        signal.signal(signal.SIGTERM, lambda *_: _end(pid))
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)  # a forked copy of the run may still hold the input open
        if os.getppid() != order["parent"]:
            _end(pid)
        _say({"pid": pid, "port": listener.getsockname()[1]})
        listener.close()
        os.waitpid(pid, 0)
    except OSError as error:
        with suppress(BrokenPipeError):  # nobody reads it any more
            _say({"error": f"cannot make the cluster's namespaces: {error}"})
    finally:
        remove(state)
    return 0


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself, as the input did
        os.kill(pid, signal.SIGKILL)


def remove(state: Path) -> None:
    """What a cluster leaves that does not end with its processes. The caller holds the state's lock."""
    namespaces.remove_cgroups(state.name)
    if f" {state}" in Path("/proc/self/mountinfo").read_text():
        raise RuntimeError(f"something is mounted below {state}; it is not removed")
    shutil.rmtree(state, ignore_errors=True)
    state.with_suffix(".lock").unlink(missing_ok=True)


def _inner(isolate: bool, state: Path, listener: socket.socket) -> None:
    """Carry out requests until there are no more. Does not return."""
    linux.die_with_parent()
    try:
        if isolate:
            namespaces.enter(state.name, state)
        Keeper(listener).serve()
    except Exception as error:
        _say({"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)  # in a PID namespace that ends every process in it; else they end with their parent


class Keeper:
    """Starts, signals and reaps processes, by name. Told on standard input: a JSON object a line, one answer each."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._pids: dict[str, int] = {}
        self._exits: dict[int, int] = {}

    def serve(self) -> None:
        """Until the end of the input."""
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        pending = b""
        while True:
            ready, _, _ = select.select([0, woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                self._reap()
            if 0 in ready:
                chunk = os.read(0, 1 << 16)
                if not chunk:
                    return
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._answer(json.loads(line))

    def _answer(self, request: dict[str, Any]) -> None:
        actions: dict[str, Callable[..., Any]] = {"start": self._start, "signal": self._signal, "state": self._state}
        try:
            _say({"answer": actions[request.pop("do")](**request)})
        except OSError as error:
            _say({"error": str(error)})

    def _start(self, name: str, argv: list[str], env: dict[str, str], log: str) -> int:
        """The process's id. `{listener}` in `argv` becomes the number of the inherited socket that listens outside."""
        number = self._listener.fileno()
        with Path(log).open("ab") as output:
            process = subprocess.Popen(
                [argument.replace("{listener}", str(number)) for argument in argv],
                pass_fds=(number,) if "{listener}" in argv else (),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=linux.die_with_parent,  # there is one thread
            )
        process.returncode = 0  # it is reaped below, not by subprocess
        self._pids[name] = process.pid
        return process.pid

    def _signal(self, name: str, number: int) -> None:
        if self._pids[name] not in self._exits:
            os.kill(self._pids[name], number)

    def _state(self) -> dict[str, int | None]:
        """Of every process ever started: its exit code (negative for a signal), or null while it runs."""
        self._reap()
        return {name: self._exits.get(pid) for name, pid in self._pids.items()}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._exits[pid] = os.waitstatus_to_exitcode(status)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
