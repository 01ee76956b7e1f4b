"""How a gate proves that its pod is intercepted: which connections to try, and what their outcomes mean. Pure.

The gate runs as the proxy's user. What that user sends over lo, except to the app's own address (127.0.0.1, ::1), the
rules turn round to the inbound port: a connection to an address of the pod at which nobody listens arrives at the
gate's own listener on 127.0.0.1:15006 or [::1]:15006. No option of a pod takes that rule away, it needs no route, and
nothing leaves the pod; without the rules the kernel refuses the connection at once.

It shows that the jump from OUTPUT, the chains and the kernel's REDIRECT work. The rules of one IP version come in one
transaction (docs/adr/0070), so where these are, those for what comes in and for what the app sends are too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh import ports
from mesh.errors import InvalidInput
from mesh.interception import Family, InterceptionSpec

_V4_TARGET = "127.0.0.2"  # local in every network namespace, and not the app's own address


@dataclass(frozen=True, slots=True)
class Probe:
    """A connection to `target`, at which nobody listens, must arrive at `arrives` instead."""

    family: Family
    target: tuple[str, int]
    arrives: tuple[str, int]


def probes(spec: InterceptionSpec, addresses6: Sequence[str]) -> tuple[Probe, ...]:
    """One for each IP version that the pod must be intercepted in.

    `addresses6` are the pod's IPv6 addresses that others can reach, as 32 hex digits: with none, IPv6 needs no rules.
    InvalidInput when options of the pod take the proof away.
    """
    port = _port(spec)
    if any(_covers_loopback(name) for name in spec.exclude_interfaces):
        raise InvalidInput(
            "the loopback interface is excluded from interception, so that nothing can be proven",
            hint="leave lo out of traffic.sidecar.istio.io/excludeInterfaces",
        )
    found = [Probe(Family.V4, (_V4_TARGET, port), (_host(Family.V4), spec.inbound_port))]
    if addresses6:
        own = str(ipaddress.IPv6Address(int(addresses6[0], 16)))
        found.append(Probe(Family.V6, (own, port), (_host(Family.V6), spec.inbound_port)))
    return tuple(found)


def check_user(spec: InterceptionSpec, uid: int) -> None:
    """InvalidInput when the gate is not the user whose connections the rules turn round."""
    if uid != spec.proxy_uid:
        raise InvalidInput(
            f"the gate runs as user {uid}, and the proxy of this pod as {spec.proxy_uid}",
            hint="leave runAsUser of container istio-validation as it was injected",
        )


def what_is_missing(outcomes: Mapping[Family, str], told: str, node: str) -> str:
    """One sentence for people. `outcomes`: why each IP version's proof failed, "" where it holds; `told`: the agent's
    last error, "" when it said that all is written, and "?" when it has not come; `node` is the node's name."""
    proven = [f"IPv{family.version}" for family, why in outcomes.items() if not why]
    failed = [f"IPv{family.version} ({why})" for family, why in outcomes.items() if why]
    state = f"not intercepted: {', '.join(failed)}"
    if proven:
        state += f"; intercepted: {', '.join(proven)}"
    where = f"node {node}" if node else "this node"
    if told == "?":
        return (
            f"{state}. heddle-node of {where} has not come (is its pod ready? kubectl get pods -A "
            "-l app=heddle-node -o wide)"
        )
    if told:
        return f"{state}. heddle-node of {where} says: {told}"
    return f"{state}, although heddle-node of {where} wrote the rules (does something else write them here too?)"


def _port(spec: InterceptionSpec) -> int:
    excluded = frozenset(spec.exclude_outbound_ports)
    for port in range(ports.GATE, 65536):
        if port not in excluded and port not in (spec.inbound_port, spec.outbound_port):
            return port
    raise InvalidInput(
        "every port is excluded from interception, so that nothing can be proven",
        hint="leave some out of traffic.sidecar.istio.io/excludeOutboundPorts",
    )


def _host(family: Family) -> str:
    return family.loopback.partition("/")[0]


def _covers_loopback(name: str) -> bool:
    """iptables(8): a name that ends in + is every name that begins so."""
    return name == "lo" or (name.endswith("+") and "lo".startswith(name[:-1]))
