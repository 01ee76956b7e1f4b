"""Starts the engine in namespaces of its own, so that nothing of it can outlive it.

The tree: this process -> keeper (`local.keeper`) -> the engine, process 1 of new PID, mount, network, IPC and UTS
namespaces, and of a user namespace when not root. Each dies with the one before it, also by SIGKILL.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mesh.errors import MissingPrerequisite

PROJECT_ROOT = Path(__file__).resolve().parent.parent
MAX_ID = 65535  # the highest uid and gid that a container can have in a user namespace


def start(
    argv: Sequence[str],
    state_dir: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `argv` as process 1 of a new sandbox; the caller waits for it, and SIGTERM to it reaches `argv`.

    `state_dir` is the one directory that stays the host's own below /run. Call this from a thread that lives as long
    as the sandbox should (the main one): the kernel ends the sandbox together with the thread that started it.
    MissingPrerequisite without root and without subordinate ids.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    uid_map, gid_map = ([], []) if os.geteuid() == 0 else id_maps(os.geteuid(), os.getegid())
    order = {
        "parent": os.getpid(),
        "argv": list(argv),
        "env": dict(os.environ if env is None else env),
        "cwd": str(cwd or Path.cwd()),
        "state_dir": str(state_dir.resolve()),
        "uid_map": uid_map,
        "gid_map": gid_map,
    }
    process = subprocess.Popen(
        helper_command("local.keeper"),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=helper_environment(),
        pass_fds=pass_fds,
        start_new_session=True,  # Ctrl-C is for this process alone, which then ends the sandbox in order
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode())
    process.stdin.close()
    process.stdin = None  # or communicate() would flush what is closed
    return process


def helper_command(module: str, *arguments: str) -> list[str]:
    """How a module of this project that needs the standard library alone is started quickly (no site-packages)."""
    return [sys.executable, "-S", "-P", "-s", "-m", module, *arguments]


def helper_environment() -> dict[str, str]:
    """The environment that `helper_command` needs."""
    path = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {"PATH": path, "PYTHONPATH": str(PROJECT_ROOT), "LC_ALL": "C.UTF-8"}


def id_maps(uid: int, gid: int) -> tuple[list[list[int]], list[list[int]]]:
    """`(uid_map, gid_map)` rows `[inside, outside, count]`: root is the caller, 1 to 65535 are subordinate ids."""
    name = pwd.getpwuid(uid).pw_name
    maps = []
    for own, file in ((uid, Path("/etc/subuid")), (gid, Path("/etc/subgid"))):
        found = subordinate_range(file.read_text() if file.exists() else "", name, uid)
        if found is None:
            raise MissingPrerequisite(
                f"user {name} has no range of {MAX_ID} subordinate ids in {file}",
                hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
            )
        maps.append([[0, own, 1], [1, found, MAX_ID]])
    return maps[0], maps[1]


def subordinate_range(text: str, name: str, uid: int) -> int | None:
    """The first id of the user's first range of at least 65,535 ids in /etc/subuid's format (subuid(5)), or None."""
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if owner in (name, str(uid)) and first.isdigit() and count.isdigit() and int(count) >= MAX_ID:
            return int(first)
    return None
