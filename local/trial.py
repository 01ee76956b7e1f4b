"""Tries in a throw-away sandbox what the engine will do, for `local.prerequisites`. Standard library only.

Prints one JSON object: the names of the steps that failed, each with the system's own words.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from local import linux


def main() -> int:
    """Every step, independently of the others' outcome."""
    failed: dict[str, str] = {}
    for name, step in _STEPS.items():
        try:
            step()
        except OSError as error:
            failed[name] = error.strerror or str(error)
        except subprocess.CalledProcessError as error:
            failed[name] = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:][0] or "it failed"
    sys.stdout.write(json.dumps(failed))
    return 0


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def _iptables(table: str, *rule: str) -> Callable[[], None]:
    return lambda: _run("iptables", "-w", "-t", table, *rule)


def _proc() -> None:
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)


def _tmpfs() -> None:
    Path("/run/heddle/trial").mkdir(parents=True)
    linux.mount("tmpfs", "/run/heddle/trial", "tmpfs", linux.MS_NOSUID, "mode=755")


def _overlay() -> None:
    base = Path(tempfile.mkdtemp(dir="/run/heddle"))
    for name in ("upper", "work", "root"):
        (base / name).mkdir()
    linux.mount("overlay", f"{base}/root", "overlay", 0, f"lowerdir=/usr,upperdir={base}/upper,workdir={base}/work")


def _veth() -> None:
    _run("ip", "link", "set", "lo", "up")
    # The engine's own way: a network namespace kept by a file, and the pair's other end in the node's.
    kept = Path("/run/netns/trial")
    kept.touch()
    _run(
        "unshare",
        f"--net={kept}",
        "ip",
        "link",
        "add",
        "eth0",
        "type",
        "veth",
        "peer",
        "hdtrial",
        "netns",
        str(os.getpid()),
    )
    _run("ip", "link", "set", "hdtrial", "up")


def _forward() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _dns() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))


_TO_PORT = ("-p", "tcp", "--dport", "15", "-j")
_STEPS: dict[str, Callable[[], None]] = {
    "proc": _proc,
    "tmpfs": _tmpfs,
    "overlay": _overlay,
    "veth": _veth,
    "forward": _forward,
    "dns": _dns,
    "nat": _iptables("nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "15001"),
    "owner": _iptables("nat", "-A", "OUTPUT", "-m", "owner", "--uid-owner", "1337", "-j", "RETURN"),
    "statistic": _iptables(
        "nat", "-A", "PREROUTING", "-m", "statistic", "--mode", "random", "--probability", "0.5",
        *_TO_PORT, "DNAT", "--to-destination", "127.0.0.1:15",
    ),
    "conntrack": _iptables(
        "nat", "-A", "POSTROUTING", "-m", "conntrack", "--ctstate", "DNAT", "-j", "SNAT", "--to-source", "127.0.0.1"
    ),
    "reject": _iptables("filter", "-A", "OUTPUT", *_TO_PORT, "REJECT", "--reject-with", "tcp-reset"),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
