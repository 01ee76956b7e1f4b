"""What a mesh could leave behind on the machine: processes, network namespaces, interfaces, iptables rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Traces:
    """Everything of that kind that is there at one moment."""

    processes: frozenset[str]
    namespaces: frozenset[str]
    interfaces: frozenset[str]
    rules: frozenset[str]

    def beyond(self, other: Traces) -> str:
        """What is here and not in `other`, in words; empty when nothing is."""
        parts = []
        for name in ("processes", "namespaces", "interfaces", "rules"):
            more = sorted(getattr(self, name) - getattr(other, name))
            if more:
                parts.append(f"{name} {', '.join(more)}")
        return "; ".join(parts)


def traces() -> Traces:
    """What is there now, as far as this user may see."""
    return Traces(_processes(), _network_namespaces(), frozenset(os.listdir("/sys/class/net")), _rules())


def _processes() -> frozenset[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue  # it has ended, or is another user's
            if b"HEDDLE_STATE=" in environment or any(b"local.engine" in word for word in line.split(b"\0")):
                found.add(f"{entry.name} {line.replace(bytes(1), b' ').decode(errors='replace').strip()}")
    return frozenset(found)


def _network_namespaces() -> frozenset[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(os.readlink(entry / "ns/net"))
            except OSError:
                continue
    named = Path("/run/netns")
    return frozenset(found | ({entry.name for entry in named.iterdir()} if named.is_dir() else set()))


def _rules() -> frozenset[str]:
    program = shutil.which("iptables-save", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or program is None:
        return frozenset()  # who is not root can neither read nor make rules of the machine
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    return frozenset(line for line in done.stdout.splitlines() if line.startswith("-A"))
