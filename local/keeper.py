"""The process between `heddle local up` and the engine: makes the namespaces, and takes everything down with it.

Run as `python -S -P -m local.keeper`, with a JSON object on standard input (see `local.sandbox`). It dies with the
process that started it, by SIGKILL; the engine is process 1 of a new PID namespace and dies with the keeper; and with
process 1 the kernel ends every process of the namespace, and with the last process the mounts, networks and rules.
Standard library only. Sources: user_namespaces(7), pid_namespaces(7), newuidmap(1).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from typing import Any

from local import linux

FAILED = 70  # EX_SOFTWARE: the namespaces could not be made; standard error says why


def main() -> int:
    """Make the sandbox, run the engine in it, and return the engine's exit code."""
    linux.die_with_parent()
    order = json.loads(sys.stdin.buffer.read())
    if os.getppid() != order["parent"]:
        return FAILED  # the parent died before the request above took effect
    try:
        if order["uid_map"]:
            _enter_user_namespace(order["uid_map"], order["gid_map"])
        linux.unshare(
            linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
        )
    except OSError as error:
        sys.stderr.write(f"cannot make the engine's namespaces: {error}\n")
        return FAILED
    alive, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        linux.die_with_parent()
        if select.select([alive], [], [], 0)[0]:
            os._exit(FAILED)  # the keeper died before the request above took effect
        _become_engine(order)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _enter_user_namespace(uid_map: list[list[int]], gid_map: list[list[int]]) -> None:
    """A new user namespace with these maps; newuidmap must run outside it, so a helper is forked before."""
    target = str(os.getpid())
    ready, go = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go)
        os.read(ready, 1)  # the other process has unshared, or died
        code = 1
        try:
            for program, rows in (("newuidmap", uid_map), ("newgidmap", gid_map)):
                numbers = [str(number) for row in rows for number in row]
                code = subprocess.run([program, target, *numbers], check=False).returncode
                if code:
                    break
        finally:
            os._exit(code)
    os.close(ready)
    linux.unshare(linux.CLONE_NEWUSER)
    os.write(go, b"1")
    os.close(go)
    _, status = os.waitpid(helper, 0)
    if status:
        raise OSError("newuidmap or newgidmap refused the maps of /etc/subuid and /etc/subgid")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])
    linux.die_with_parent()  # a change of credentials clears the request


def _become_engine(order: dict[str, Any]) -> None:
    """Process 1 of the sandbox: its own /proc, /sys and /run, then the engine's program. Does not return."""
    try:
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
        _fresh_run(order["state_dir"])
        os.chdir(order["cwd"])
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"cannot start the engine: {error}\n")
    os._exit(FAILED)


def _fresh_run(state_dir: str) -> None:
    """A private /run (for /run/netns and xtables' lock), in which a state directory below /run stays visible."""
    inside = state_dir == "/run" or state_dir.startswith("/run/")
    kept = os.open(state_dir, os.O_PATH) if inside else -1
    linux.mount("tmpfs", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    os.makedirs("/run/netns")
    os.makedirs("/run/heddle", 0o711)
    if inside:
        os.makedirs(state_dir)
        linux.bind(f"/proc/self/fd/{kept}", state_dir, read_only=False)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
