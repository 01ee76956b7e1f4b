"""The processes of one running mesh, as the machine sees them, to be killed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    command: str
    environment: frozenset[str]

    @property
    def alive(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def descendants(root: int) -> list[Process]:
    """All processes below `root`."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
            children.setdefault(parent, []).append(int(entry.name))
    found, left = [], [root]
    while left:
        for pid in children.get(left.pop(), ()):
            left.append(pid)
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            found.append(Process(pid, command.strip(), frozenset(environment)))
    return found


def sidecar(root: int, pod: str) -> tuple[Process, Process]:
    """Agent and Envoy of `pod` in the mesh `root`."""
    agents = [p for p in descendants(root) if f"POD_NAME={pod}" in p.environment and p.command.endswith("agent run")]
    assert len(agents) == 1, agents
    (envoy,) = (process for process in descendants(agents[0].pid) if "/envoy " in process.command)
    return agents[0], envoy
