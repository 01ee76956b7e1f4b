"""The namespaces and cgroups of a test cluster that runs pods. Standard library only: `keeper` uses it.

Cgroups are of version 1 or hybrid: below each of the caller's own cgroups one is made for the cluster, which in the
cluster's cgroup namespace is the root, so that what kubelet and runc make is below it and goes with it.
Sources: cgroup_namespaces(7), cgroups(7), mount_namespaces(7).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local import linux

CLONE_NEWCGROUP = 0x02000000
MS_SHARED = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")
# Of the processor, in the hierarchy of version 1: a cgroup beside processes that are in none counts as one of them, at
# 1,024, and everything in the cluster has this together. Tests of traffic in it have other lanes of tests beside them.
SHARES = 8 * 1024
# Of a cluster's part, what is for a second node, or a second cluster, that is started from within (`processor_of`).
SHARES_WITHIN = 4 * 1024
NODE = "heddle-node"

# What kubelet would write into the kernel for the whole machine; inside, these are files.
KERNEL_SETTINGS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)  # fmt: skip
# Directories of the machine that components write to whatever their flags say.
REPLACED = ("/var/log", "/var/lib/cni", "/var/lib/kubelet", "/etc/cni", "/opt/cni", "/usr/libexec/kubernetes")


def make_cgroups(name: str) -> None:
    """A cgroup called `name` below each of this process's; OSError where that is not allowed or not of version 1."""
    found = list(_own_cgroups())
    if not found:
        raise OSError("this machine has only cgroups of version 2, which the test cluster's node has not learned yet")
    for _, path in found:
        own = path / name
        own.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # start empty, and then no process may enter
            if (path / setting).exists():
                (own / setting).write_text((path / setting).read_text())
        if (own / "cpu.shares").exists():
            within = int((path / "cpu.shares").read_text()) == SHARES
            (own / "cpu.shares").write_text(str(SHARES_WITHIN if within else SHARES))


def enter(name: str, state: Path) -> None:
    """Put this process, the first of a PID namespace, into the cgroups `name` and into namespaces of its own."""
    hierarchies = list(_own_cgroups())
    for _, path in hierarchies:
        (path / name / "cgroup.procs").write_text("0")
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | CLONE_NEWCGROUP)
    socket.sethostname(NODE)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", "/proc", "proc", quiet)
    linux.mount("sysfs", "/sys", "sysfs", quiet)
    linux.mount("tmpfs", str(CGROUPS), "tmpfs", quiet, "mode=755")
    for controllers, _ in hierarchies:
        _mount_cgroup(controllers, quiet)
    for mounted in _mounted_below("/run"):  # hidden, but containerd takes what it reads in mountinfo for what there is
        linux.detach(mounted)
    linux.mount("tmpfs", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    # As on a node that systemd started: what is mounted there later reaches the containers that ask for it.
    linux.mount("none", "/run", None, MS_SHARED)
    Path("/run/netns").mkdir()
    for place in REPLACED:
        inside = state / "replaced" / place.lstrip("/").replace("/", "-")
        inside.mkdir(parents=True)
        if Path(place).is_dir():
            linux.bind(str(inside), place, read_only=False)
    for setting in KERNEL_SETTINGS:
        file = state / "replaced" / setting.replace("/", ".")
        file.write_text((Path("/proc/sys") / setting).read_text())
        linux.bind(str(file), f"/proc/sys/{setting}", read_only=False)


@contextmanager
def processor_of(name: str) -> Iterator[None]:
    """This process, and what it starts, has its processor time from what the cluster `name` has.

    Otherwise the cluster, as long as it is busy, would leave a test that drives it a small part of what is left.
    """
    for controllers, path in _own_cgroups():
        if "cpu" in controllers.split(","):
            (path / name / "cgroup.procs").write_text(str(os.getpid()))
            try:
                yield
            finally:
                (path / "cgroup.procs").write_text(str(os.getpid()))
            return
    yield


def remove_cgroups(name: str) -> None:
    """Remove the cgroups `name`, once their processes are dead, which the kernel takes a moment for."""
    for _, path in _own_cgroups():
        for directory, _, _ in os.walk(path / name, topdown=False):
            _remove_cgroup(directory)


def _remove_cgroup(directory: str) -> None:
    for _ in range(100):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError:  # EBUSY: a process in it is not quite gone
            time.sleep(0.05)
        else:
            return


def _mounted_below(place: str) -> list[str]:
    """Mount points under `place` that are under no other there."""
    found: list[str] = []
    for point in sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        if point.startswith(f"{place}/") and not any(point == f or point.startswith(f"{f}/") for f in found):
            found.append(point)
    return found


def _own_cgroups() -> Iterator[tuple[str, Path]]:
    """`(controllers, directory)` of this process's cgroup in each hierarchy of version 1."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        directory = CGROUPS / controllers.removeprefix("name=") / path.lstrip("/")
        if controllers and directory.is_dir():
            yield controllers, directory


def _mount_cgroup(controllers: str, flags: int) -> None:
    target = CGROUPS / controllers.removeprefix("name=")
    target.mkdir()
    options = f"none,{controllers}" if controllers.startswith("name=") else controllers
    linux.mount("cgroup", str(target), "cgroup", flags, options)
    for alias in controllers.split(",") if "," in controllers else ():
        (CGROUPS / alias).symlink_to(target.name)
