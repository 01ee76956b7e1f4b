"""Puts the rules of mesh/interception.py in force in the calling thread's network namespace, and checks them.

Used by the init container (`heddle-init`, from inside a pod) and by the node agent (from outside). Both need the
capabilities NET_ADMIN and NET_RAW there. Doing it again gives the same rules.

A pod whose kernel offers both iptables backends must get all rules in one: the one that holds our chains already,
otherwise the one that plain `iptables` is, otherwise whichever works.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mesh.errors import Conflict, MissingPrerequisite
from mesh.interception import CHAINS, Family, InterceptionSpec, cleanup_text, missing, restore_text

log = logging.getLogger("netfilter")

LOCK_WAIT = "30"  # seconds to wait for another iptables in the same namespace
_TIMEOUT = 60.0
_BACKENDS = {
    Family.V4: ("iptables", "iptables-nft", "iptables-legacy"),
    Family.V6: ("ip6tables", "ip6tables-nft", "ip6tables-legacy"),
}
_LOCKS = (Path("/run"), Path("/dev/shm"), Path("/tmp"))  # noqa: S108 (a pod's own, see _environment)
_SIOCSIFADDR = 0x8916
_NET = Path("/proc/thread-self/net")  # /proc/net is that of the process's first thread, which may be elsewhere

_NOT_ALLOWED = ("permission denied", "operation not permitted", "you must be root")
_NO_MODULE = (
    "no chain/target/match by that name",
    "do you need to insmod",
    "can't initialize",
    "couldn't load",
    "missing kernel module",
    "no such file or directory",
    "protocol not supported",
    "could not fetch rule set",
    "table does not exist",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program printed, and how it ended (`code` 127: it is not there)."""

    code: int
    out: str
    err: str


Run = Callable[[list[str], str], Answer]


@dataclass(frozen=True, slots=True)
class Machine:
    """What `intercept` needs of the world: programs, and the state of this network namespace.

    `legacy_tables(family)` names the tables that iptables-legacy has here already.
    """

    run: Run
    legacy_tables: Callable[[Family], list[str]] = field(default=lambda family: tables_in_use(family))
    addresses6: Callable[[], list[str]] = field(default=lambda: ipv6_addresses())
    add_address6: Callable[[], None] = field(default=lambda: add_passthrough_address())


def intercept(spec: InterceptionSpec, machine: Machine, *, replace: bool = True) -> None:
    """Put the rules of `spec` in force for both IP versions; MissingPrerequisite when that cannot be.

    Without `replace`, rules that are there already and are others stay, and are a Conflict.
    """
    backend = _apply(spec, Family.V4, machine, replace=replace)
    log.info("IPv4 connections of this pod go through the proxy (%s)", backend)
    addresses = machine.addresses6()
    if not addresses:
        log.info("this pod has no IPv6; nothing to do for it")
        return
    if not routable(addresses):
        # Connections to ::1 are never intercepted, so a pod with nothing else loses nothing.
        log.info("this pod has no IPv6 address but its own; nothing to do for it")
        return
    machine.add_address6()
    backend = _apply(spec, Family.V6, machine, replace=replace)
    log.info("IPv6 connections of this pod go through the proxy (%s)", backend)


def clean(machine: Machine) -> None:
    """Remove the rules of both IP versions, whichever backend holds them."""
    for family in Family:
        for backend in _backends(family, machine, only_in_use=True):
            text = cleanup_text(machine.run([f"{backend}-save", "-t", "nat"], "").out)
            if text:
                answer = _restore(backend, text, machine)
                if answer.code:
                    raise _failure([(backend, answer)])
                log.info("rules removed (%s)", backend)


def _apply(spec: InterceptionSpec, family: Family, machine: Machine, *, replace: bool) -> str:
    failures: list[tuple[str, Answer]] = []
    for backend in _backends(family, machine):
        answer = machine.run([f"{backend}-save", "-t", "nat"], "")
        if not replace and any(f":{chain} " in answer.out for chain in CHAINS):
            if missing(spec, family, answer.out):
                raise Conflict(
                    f"{backend} has other interception rules here already, and only an init container of the pod may "
                    "replace them",
                    hint="delete the pod, so that its successor gets its rules in a network namespace of its own",
                )
            return backend
        if answer.code == 0:
            answer = _restore(backend, restore_text(spec, family, answer.out), machine)
        if answer.code == 0:
            _check(spec, family, backend, machine)
            return backend
        failures.append((backend, answer))
    raise _failure(failures)


def _backends(family: Family, machine: Machine, *, only_in_use: bool = False) -> list[str]:
    """Backends in the order to try. Asking iptables-legacy makes its tables, so it is asked only if it has some."""
    *others, legacy = _BACKENDS[family]
    if "nat" not in machine.legacy_tables(family):
        return others if only_in_use else [*others, legacy]
    holds_ours = ":ISTIO_" in machine.run([f"{legacy}-save", "-t", "nat"], "").out
    return [legacy, *others] if holds_ours else [*others, legacy]


def _restore(backend: str, text: str, machine: Machine) -> Answer:
    return machine.run([f"{backend}-restore", "--noflush", "--wait", LOCK_WAIT], text)


def _check(spec: InterceptionSpec, family: Family, backend: str, machine: Machine) -> None:
    wrong = missing(spec, family, machine.run([f"{backend}-save", "-t", "nat"], "").out)
    if wrong:
        raise MissingPrerequisite(
            f"{backend} reports success, but {len(wrong)} rules are not in force, the first: {wrong[0]}",
            hint="does something else write the nat table of this pod, or are iptables-nft and iptables-legacy mixed?",
        )


def _failure(failures: Iterable[tuple[str, Answer]]) -> MissingPrerequisite:
    """The one sentence: the first backend that exists tells why."""
    present = [(name, answer) for name, answer in failures if answer.code != 127]
    if not present:
        return MissingPrerequisite("iptables is not installed here", hint="use Heddle's image, or install iptables")
    name, answer = present[0]
    words = " ".join(answer.err.split()) or f"exit {answer.code}"
    said = words.lower()
    if any(part in said for part in _NOT_ALLOWED):
        return MissingPrerequisite(
            f"the rules may not be written: {name} says: {words}",
            hint="that needs root with NET_ADMIN and NET_RAW; where a namespace forbids that to its pods, enable node "
            "interception",
        )
    if any(part in said for part in _NO_MODULE):
        return MissingPrerequisite(
            f"the kernel lacks a module that the rules need: {name} says: {words}",
            hint="on the node: modprobe -a xt_REDIRECT xt_owner xt_tcpudp nft_compat nf_nat (iptables-legacy: "
            "iptable_nat ip6table_nat too), or enable node interception",
        )
    return MissingPrerequisite(f"the rules were not accepted: {name} says: {words}")


def run_program(command: list[str], text: str) -> Answer:
    """Run `command` with `text` on its standard input."""
    if shutil.which(command[0]) is None:
        return Answer(127, "", f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, env=_environment(os.environ)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(1, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """iptables-legacy locks /run/xtables.lock, which a read-only root file system has no place for.

    Only processes in this network namespace matter to the lock, and an init container is alone there.
    """
    place = next((folder for folder in _LOCKS if os.access(folder, os.W_OK)), _LOCKS[0])
    return {"XTABLES_LOCKFILE": str(place / "xtables.lock"), **given}


def tables_in_use(family: Family) -> list[str]:
    """The iptables-legacy tables that exist in this network namespace; empty when the kernel has no such thing."""
    try:
        return Path(_NET, "ip_tables_names" if family is Family.V4 else "ip6_tables_names").read_text().split()
    except OSError:
        return []


def ipv6_addresses(table: Path = _NET / "if_inet6") -> list[str]:
    """The IPv6 addresses of this network namespace, as 32 hex digits each; empty when the kernel has no IPv6."""
    try:
        return [line.split()[0] for line in table.read_text().splitlines()]
    except OSError:
        return []


def routable(addresses: Iterable[str]) -> list[str]:
    """Those of `ipv6_addresses` by which others can reach the pod: neither link-local nor ::1 or ::6."""
    return [address for address in addresses if not address.startswith("fe80") and int(address, 16) not in (1, 6)]


def add_passthrough_address() -> None:
    """Add ::6/128 to lo: IPv4 can bind any 127.0.0.0/8 address, IPv6 only those that an interface has.

    netdevice(7): `struct in6_ifreq` is the address, the prefix length and the interface's index.
    """
    request = struct.pack("=16sIi", socket.inet_pton(socket.AF_INET6, "::6"), 128, socket.if_nametoindex("lo"))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCSIFADDR, request)
        except FileExistsError:
            return
        except OSError as error:
            raise MissingPrerequisite(
                f"::6 cannot be added to the loopback interface: {error}", hint="that needs the capability NET_ADMIN"
            ) from error
