"""The node's network and the pods' networks, in the engine's network namespace.

A pod is a network namespace with one routed veth pair: address 10.244.x.y/32, its default route to 169.254.1.1, which
is the node's end of the pair by a fixed neighbour entry. There is no bridge, so that every packet between pods passes
the node's rules, as it does under kube-proxy. IPv4 only, except for ::1 on the pods' loopback (docs/adr/0021).
All methods block for some milliseconds (`ip` runs) and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from local import linux
from local.services import Object, rules
from mesh.errors import Busy, HeddleError

NODE_ADDRESS = "10.244.0.1"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"

_GATEWAY = "169.254.1.1"
_NODE_MAC = "ee:ee:ee:ee:ee:ee"
_NAMESPACES = Path("/run/netns")
_NODE_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/ip_unprivileged_port_start": "0",
}


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """A pod's address and the namespace files (network, host name, IPC) that keep its namespaces alive."""

    name: str
    address: str
    interface: str

    @property
    def net(self) -> Path:
        return _NAMESPACES / self.name

    @property
    def uts(self) -> Path:
        return _NAMESPACES / f"{self.name}.uts"

    @property
    def ipc(self) -> Path:
        return _NAMESPACES / f"{self.name}.ipc"


class Addresses:
    """Hands out pod addresses in order, so that one just freed comes back as late as possible. Not thread-safe."""

    def __init__(self, pod_range: str = POD_RANGE) -> None:
        network = ipaddress.IPv4Network(pod_range)
        # The first 256 are the node's (10.244.0.x), so that a pod's address is told from the node's at a glance.
        self._first, self._last = int(network[256]), int(network[-2])
        self._next = self._first
        self._used: set[int] = set()

    def take(self) -> str:
        """A free address; Busy when there is none."""
        for _ in range(self._last - self._first + 1):
            candidate = self._next
            self._next = self._first if candidate == self._last else candidate + 1
            if candidate not in self._used:
                self._used.add(candidate)
                return str(ipaddress.IPv4Address(candidate))
        raise Busy("every pod address is in use", hint="run fewer pods")

    def release(self, address: str) -> None:
        self._used.discard(int(ipaddress.IPv4Address(address)))


class Network:
    """Sets up the node once, attaches and detaches pods, and keeps the services' rules current."""

    def __init__(self, node_address: str = NODE_ADDRESS, node_services: tuple[str, ...] = (DNS_ADDRESS,)) -> None:
        self.node_address = node_address
        self._node_services = node_services
        self._addresses = Addresses()
        self._lock = threading.Lock()
        self._rules_lock = threading.Lock()
        self._applied = ""
        self._services: list[Object] = []

    def start(self) -> None:
        """Loopback, the node's addresses and routes, forwarding, and the rules that refuse unknown services."""
        for name, value in _NODE_SETTINGS.items():
            (Path("/proc/sys") / name).write_text(value)
        lines = ["link set lo up", f"addr add {self.node_address}/32 dev lo"]
        lines += [f"addr add {address}/32 dev lo" for address in self._node_services]
        lines += [
            # Node processes need some route to a service's address; the packet is rewritten before it would leave.
            f"route add {SERVICE_RANGE} dev lo src {self.node_address}",
            # Addresses that no pod has, and the world outside, are refused at once instead of timing out.
            f"route add unreachable {POD_RANGE}",
            "route add unreachable default",
        ]
        _run(["ip", "-batch", "-"], lines)
        self.set_services([], [])

    def attach(self, name: str) -> PodNetwork:
        """Namespaces and an address for the pod whose unique, path-safe name is `name`."""
        with self._lock:
            address = self._addresses.take()
        interface = interface_name(address)
        pod = PodNetwork(name, address, interface)
        try:
            for file in (pod.net, pod.uts, pod.ipc):
                file.touch(exist_ok=False)
            inside = [
                "link set lo up",
                f"link add eth0 type veth peer name {interface} address {_NODE_MAC} netns {os.getpid()}",
                "link set eth0 addrgenmode none",
                f"link set eth0 address {mac_address(address)}",
                f"addr add {address}/32 dev eth0",
                "link set eth0 up",
                f"route add {_GATEWAY} dev eth0 scope link",
                f"route add default via {_GATEWAY} dev eth0 src {address}",
                f"neigh add {_GATEWAY} lladdr {_NODE_MAC} dev eth0 nud permanent",
            ]
            make = ["unshare", f"--net={pod.net}", f"--uts={pod.uts}", f"--ipc={pod.ipc}", "ip", "-batch", "-"]
            _run(make, inside)
            outside = [
                f"link set {interface} addrgenmode none",
                f"link set {interface} up",
                f"route add {address}/32 dev {interface}",
                f"neigh add {address} lladdr {mac_address(address)} dev {interface} nud permanent",
            ]
            _run(["ip", "-batch", "-"], outside)
        except BaseException:
            self.detach(pod)
            raise
        return pod

    def detach(self, pod: PodNetwork) -> None:
        """Take the pod's network away; the kernel removes the veth pair and its routes soon after the namespace."""
        for file in (pod.net, pod.uts, pod.ipc):
            with contextlib.suppress(OSError):
                linux.detach(str(file))
            file.unlink(missing_ok=True)
        with self._lock:
            self._addresses.release(pod.address)

    def set_services(self, services: Iterable[Object], slices: Iterable[Object]) -> None:
        """Make these the services and endpoints that NAT knows, in one step; nothing runs if the rules are the same."""
        services = list(services)
        text = rules(
            services,
            slices,
            node_address=self.node_address,
            service_range=SERVICE_RANGE,
            node_services=self._node_services,
        )
        with self._rules_lock:
            self._services = services
            if text != self._applied:
                _run(["iptables-restore"], text.splitlines())
                self._applied = text

    @property
    def services(self) -> list[Object]:
        """The services that `set_services` was last given."""
        return self._services


def interface_name(address: str) -> str:
    """The node's end of the pair of the pod with this address: `hd` and the address in hex (at most 15 characters)."""
    return f"hd{int(ipaddress.IPv4Address(address)):08x}"


def mac_address(address: str) -> str:
    """A locally administered MAC address made of the pod's IPv4 address."""
    return ":".join(["0a", "58", *(f"{octet:02x}" for octet in ipaddress.IPv4Address(address).packed)])


def _run(argv: list[str], lines: list[str]) -> None:
    """Run a program with these lines as input; its own words in the error."""
    done = subprocess.run(
        argv, input="\n".join([*lines, ""]), capture_output=True, text=True, check=False, env=_environment()
    )
    if done.returncode:
        raise HeddleError(
            f"{' '.join(argv[:4])} failed: {done.stderr.strip() or done.stdout.strip() or done.returncode}",
            hint="see `heddle local up`'s prerequisites",
        )


def _environment() -> dict[str, str]:
    """PATH with the directories of administration, which users often lack."""
    return {"PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL": "C"}
