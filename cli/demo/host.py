"""What a mesh could leave behind on the machine: processes, network namespaces, interfaces, iptables rules.

Processes and namespaces are those of the mesh's own tree, noted while it runs, so that whatever else the machine does
meanwhile is not taken for the mesh's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TEARDOWN_SECONDS = 10.0
"""The kernel takes namespaces down in the background, shortly after their last process."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Interfaces and iptables rules of the machine, as far as this user may see them."""

    interfaces: frozenset[str]
    rules: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tree:
    """A process and all below it: (pid, start time) -> command line; and their network namespaces but our own."""

    processes: dict[tuple[int, str], str]
    namespaces: frozenset[str]


def surroundings() -> Surroundings:
    """What is there now."""
    return Surroundings(frozenset(os.listdir("/sys/class/net")), _rules())


def tree(root: int) -> Tree:
    """The process `root` and its descendants now."""
    parents = {pid: found[1] for pid in _pids() if (found := _stat(pid)) is not None}
    inside = {root}
    while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
        inside |= more
    processes = {(pid, found[0]): _command(pid) for pid in inside if (found := _stat(pid)) is not None}
    return Tree(processes, frozenset(map(_namespace, inside)) - {_namespace(os.getpid()), ""})


def left_behind(mesh: Tree, before: Surroundings) -> str:
    """What is still there of the mesh after it ended, in words; empty when nothing is."""
    until = time.monotonic() + TEARDOWN_SECONDS
    while (left := _left(mesh, before)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def _left(mesh: Tree, before: Surroundings) -> str:
    alive = [line for (pid, started), line in mesh.processes.items() if (s := _stat(pid)) and s[0] == started]
    namespaces = mesh.namespaces & set(map(_namespace, _pids()))
    now = surroundings()
    parts = {
        "processes": alive,
        "network namespaces": namespaces,
        "interfaces": now.interfaces - before.interfaces,
        "iptables rules": now.rules - before.rules,
    }
    return "; ".join(f"{name} {', '.join(sorted(found))}" for name, found in parts.items() if found)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _stat(pid: int) -> tuple[str, int] | None:
    """Start time and parent of a process that is alive (proc_pid_stat(5)); None for a zombie, or when it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (fields[19], int(fields[1]))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _namespace(pid: int) -> str:
    """The network namespace as `net:[number]`; empty when it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _rules() -> frozenset[str]:
    program = shutil.which("iptables-save", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or program is None:
        return frozenset()  # who is not root can neither read nor make rules of the machine
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    return frozenset(line for line in done.stdout.splitlines() if line.startswith("-A"))
