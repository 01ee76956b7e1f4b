"""Starts processes in containers through the launcher, and follows them to their end.

The launcher (`local.launch`) ends as soon as the program runs, so the program becomes a child of the nearest subreaper:
the engine, which is process 1 of its PID namespace. A pidfd tells when it has ended, without threads or polling.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local import linux
from local.network import PodNetwork
from local.rootfs import RootPlan
from local.sandbox import helper_command, helper_environment
from local.security import Security
from mesh.errors import HeddleError


class LaunchFailed(HeddleError):
    """The program could not be started; the message is the system's own."""

    code = "launch-failed"


@dataclass(frozen=True, slots=True)
class Mount:
    """`source` (on the machine) shown at `target` (in the container)."""

    source: str
    target: str
    read_only: bool
    file: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"source": self.source, "target": self.target, "read_only": self.read_only, "file": self.file}


@dataclass(frozen=True, slots=True)
class Program:
    """What runs, as whom: used for a container's first process and again for every `exec` in it."""

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: str
    security: Security

    def order(self) -> dict[str, Any]:
        who = self.security
        return {
            "argv": list(self.argv),
            "env": dict(self.env),
            "cwd": self.directory,
            "uid": who.uid,
            "gid": who.gid,
            "groups": list(who.groups),
            "capabilities": list(who.capabilities),
            "no_new_privs": who.no_new_privs,
            "tty": False,
            "join": 0,
        }


def first_process(
    program: Program,
    *,
    network: PodNetwork | None,
    hostname: str,
    sysctls: Mapping[str, str],
    root: RootPlan,
    scratch: str,
    files: Mapping[str, str],
    mounts: Sequence[Mount],
) -> dict[str, Any]:
    """The launcher's order for a container. Without `network` it runs in the node's own (hostNetwork)."""
    namespaces: list[tuple[str, int]] = []
    if network is not None:
        namespaces = [
            (str(network.net), linux.CLONE_NEWNET),
            (str(network.uts), linux.CLONE_NEWUTS),
            (str(network.ipc), linux.CLONE_NEWIPC),
        ]
    return program.order() | {
        "namespaces": namespaces,
        "hostname": hostname if network is not None else "",
        "sysctls": dict(sysctls) if network is not None else {},
        "root": root.as_json(),
        "scratch": scratch,
        "files": dict(files),
        "mounts": [mount.as_json() for mount in mounts],
        "read_only": program.security.read_only_root,
        "privileged": program.security.privileged,
    }


def further_process(program: Program, pid: int, *, tty: bool) -> dict[str, Any]:
    """The launcher's order for a command in the container whose first process is `pid`."""
    return program.order() | {"join": pid, "tty": tty}


def launch(order: Mapping[str, Any], stdin: int, stdout: int, stderr: int) -> int:
    """Start it and return its PID as this process sees it. Blocks some 30 ms; LaunchFailed says why not."""
    told, tell = os.pipe()
    try:
        process = subprocess.Popen(
            helper_command("local.launch", str(tell), str(stdin)),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            env=helper_environment(),
            pass_fds=(tell, stdin),
        )
        os.close(tell)
        tell = -1
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode())
            process.stdin.close()
        answer = b""
        while chunk := os.read(told, 65536):
            answer += chunk
        process.wait()
    finally:
        os.close(told)
        if tell >= 0:
            os.close(tell)
    if not answer:
        raise LaunchFailed(f"the launcher ended with {process.returncode} and without an answer")
    result = json.loads(answer)
    if "error" in result:
        raise LaunchFailed(result["error"])
    return int(result["pid"])


class Process:
    """A process that was launched: signal it, and wait for its end on the event loop."""

    def __init__(self, pid: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid = pid
        self._loop = loop
        self._handle = os.pidfd_open(pid)
        # (exit code, signal): a signal's code is 128 + its number, as shells and container runtimes say it.
        self.ended: asyncio.Future[tuple[int, int]] = loop.create_future()
        loop.add_reader(self._handle, self._reap)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; nothing happens if it has ended."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def _reap(self) -> None:
        result = os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        by_signal = result.si_code != os.CLD_EXITED
        number = result.si_status if by_signal else 0
        self.ended.set_result((128 + number if by_signal else result.si_status, number))
