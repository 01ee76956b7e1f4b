"""Builds a container's root directory inside its new mount namespace, by the plan of `local.rootfs`.

Runs in the launcher: standard library only. The machine's files are seen through overlays whose upper layers are on a
tmpfs that goes away with the mount namespace, or through read-only binds; nothing of the machine can be written.
Sources: mount_namespaces(7), the kernel's filesystems/overlayfs.rst, the OCI runtime specification's list of devices.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any

from local import linux

_OLD = "/.machine"  # where the machine's own root is while the container's is put together
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# What container runtimes keep from containers in /proc, for these are the machine's and not the container's.
_PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs")
_PROC_HIDDEN = ("kcore", "keys", "timer_list", "sched_debug", "latency_stats")
_SAFE = linux.MS_NOSUID | linux.MS_NODEV


def build_root(order: dict[str, Any]) -> None:
    """Make and enter the root that `order` describes (keys: root, scratch, files, mounts, read_only, privileged)."""
    plan, scratch = order["root"], order["scratch"]
    mounts = [{**mount, "target": os.path.realpath(mount["target"])} for mount in order["mounts"]]
    mounts.sort(key=lambda mount: mount["target"].count("/"))
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    layers = f"{scratch}/layers"
    linux.mount("tmpfs", scratch, "tmpfs", _SAFE, "mode=755")
    os.mkdir(layers)
    root = f"{scratch}/root"
    os.mkdir(root)
    linux.mount("tmpfs", root, "tmpfs", _SAFE, "mode=755")
    os.mkdir(root + _OLD)
    linux.pivot_root(root, root + _OLD)
    os.chdir("/")
    _fill(plan, _OLD + layers, order["files"], [mount["target"] for mount in mounts])
    _mount_kernel(order["privileged"])
    for mount in mounts:
        _make_target(mount)
        linux.bind(_OLD + mount["source"], mount["target"], read_only=mount["read_only"])
        _show_again(plan, mount["target"])
    linux.detach(_OLD)
    os.rmdir(_OLD)
    if order["read_only"]:
        for path in ("/", *(f"/{name}" for name in plan["layered"])):
            linux.mount("none", path, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | _flags_of(path))


def _show_again(plan: dict[str, Any], target: str) -> None:
    """What must be seen of the machine, where the volume at `target` now hides it; the engine's state stays covered."""
    for path in plan["needed"]:
        if path.startswith(f"{target}/"):
            _make_target({"target": path, "file": not os.path.isdir(_OLD + path)})
            linux.bind(_OLD + path, path, read_only=True)
            _mask(covered for covered in plan["masked"] if covered.startswith(f"{path}/"))


def _mask(paths: Iterable[str]) -> None:
    for path in paths:
        if os.path.isdir(path):
            linux.mount("tmpfs", path, "tmpfs", _SAFE | linux.MS_RDONLY, "mode=755")


def _flags_of(path: str) -> int:
    """The flags of a mount that must be repeated when it is remounted (in a user namespace they are locked)."""
    found = os.statvfs(path).f_flag
    return found & (linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)


def _fill(plan: dict[str, Any], layers: str, files: dict[str, str], targets: list[str]) -> None:
    for name, target in plan["links"]:
        os.symlink(target, f"/{name}")
    for name in plan["fresh"]:
        os.mkdir(f"/{name}")
    os.chmod("/tmp", 0o1777)  # noqa: S103, S108  the container's own
    for name in plan["layered"]:
        _layer(name, f"{layers}/{name}", files, targets)
    for path in plan["emptied"]:
        linux.mount("tmpfs", path, "tmpfs", _SAFE, "mode=755")
    for path in plan["binds"]:
        source = _OLD + path
        _make_target({"target": path, "file": not os.path.isdir(source)})
        linux.bind(source, path, read_only=True)
    _mask(plan["masked"])


def _layer(name: str, layer: str, files: dict[str, str], targets: list[str]) -> None:
    """The machine's `/name` below a throw-away writable layer, in which `files` of that directory already are.

    So are the parents of mount points: in a user namespace, directories of the machine's root cannot be written to,
    not even in an overlay, but a directory of the upper layer can.
    """
    source, target = f"{_OLD}/{name}", f"/{name}"
    upper, work = f"{layer}/upper", f"{layer}/work"
    os.makedirs(layer)
    os.mkdir(work)
    os.mkdir(target)
    os.mkdir(upper)
    os.chmod(upper, os.stat(source).st_mode & 0o7777)
    for path in (*targets, *files):
        if path.startswith(f"{target}/") and not os.path.exists(_OLD + path):
            _copy_parents(upper, os.path.dirname(path).removeprefix(target), source)
    for path, text in files.items():
        if path.startswith(f"{target}/"):
            with open(upper + path.removeprefix(target), "w") as file:
                file.write(text)
    try:
        linux.mount("overlay", target, "overlay", _SAFE, f"lowerdir={source},upperdir={upper},workdir={work}")
    except OSError:
        # Some file systems (network and FUSE ones) cannot be below an overlay.
        linux.bind(source, target, read_only=True)


def _copy_parents(upper: str, directory: str, source: str) -> None:
    """`directory` and its parents in the upper layer, with the modes that they have on the machine."""
    path = ""
    for part in directory.split("/")[1:]:
        path += f"/{part}"
        if os.path.isdir(upper + path):
            continue
        os.mkdir(upper + path)
        found = os.path.isdir(source + path)
        os.chmod(upper + path, os.stat(source + path).st_mode & 0o7777 if found else 0o755)


def _make_target(mount: dict[str, Any]) -> None:
    """The mount point: an empty directory, or an empty file to mount a file on."""
    target = mount["target"]
    if os.path.exists(target):
        return
    if not mount["file"]:
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w"):
        pass


def _mount_kernel(privileged: bool) -> None:
    """/proc of the container's own processes, /sys of its own network, a minimal /dev."""
    kernel = _SAFE | linux.MS_NOEXEC
    for name in ("proc", "sys", "dev"):
        os.mkdir(f"/{name}")
    linux.mount("proc", "/proc", "proc", kernel)
    try:
        linux.mount("sysfs", "/sys", "sysfs", kernel | (0 if privileged else linux.MS_RDONLY))
    except OSError:  # refused in a user namespace on machines that cover parts of /sys: theirs, read-only
        linux.bind(f"{_OLD}/sys", "/sys", read_only=True)
    linux.mount("tmpfs", "/dev", "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=755,size=64k")
    for name in _DEVICES:
        with open(f"/dev/{name}", "w"):
            pass
        linux.mount(f"{_OLD}/dev/{name}", f"/dev/{name}", None, linux.MS_BIND)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts")
    linux.mount("devpts", "/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    os.mkdir("/dev/shm")  # noqa: S108
    linux.mount("tmpfs", "/dev/shm", "tmpfs", kernel, "mode=1777")  # noqa: S108
    if privileged:
        return
    for name in _PROC_READ_ONLY:
        with contextlib.suppress(FileNotFoundError):
            linux.mount(f"/proc/{name}", f"/proc/{name}", None, linux.MS_BIND | linux.MS_REC)
            linux.make_read_only(f"/proc/{name}")
    for name in _PROC_HIDDEN:
        with contextlib.suppress(FileNotFoundError):
            linux.mount("/dev/null", f"/proc/{name}", None, linux.MS_BIND)
