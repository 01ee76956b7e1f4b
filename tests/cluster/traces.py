"""What a test cluster could leave on the machine, or change on it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.cluster import missing
from tests.cluster.namespaces import CGROUPS, KERNEL_SETTINGS

# How a node's interfaces, rules and mounts look: CNI's, kube-proxy's and containerd's names.
INTERFACE = re.compile(r"^\d+: (veth|cni|kube)", re.MULTILINE)
RULE = re.compile(r"^:(KUBE|CNI)-", re.MULTILINE)
MOUNT = re.compile(r"heddle-cluster/runs|/run/netns/cni-|/run/containerd/")


def processes_of(run: str) -> list[str]:
    """Command lines of processes that the cluster called `run` started."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = line.read_text()
        except OSError:
            continue  # it has ended meanwhile
        if run in command:
            found.append(command)
    return found


def cgroups_of(run: str) -> list[Path]:
    """The cgroups of the cluster called `run`."""
    return [path for path in CGROUPS.rglob(run) if path.is_dir()]


def interfaces_and_rules() -> str:
    """This network namespace's interfaces and packet filter rules, as text."""
    commands = ([missing.program("ip", "iproute2"), "-oneline", "link"], [missing.program("iptables-save", "iptables")])
    return "".join(subprocess.run(one, capture_output=True, text=True, check=True).stdout for one in commands)


def kernel_settings() -> dict[str, str]:
    """What kubelet would set for the whole machine."""
    return {name: (Path("/proc/sys") / name).read_text() for name in KERNEL_SETTINGS}
