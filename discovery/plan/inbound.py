"""What a sidecar does with connections to its own pod: by target port of the services that select the pod.

A port that a container declares and no service names is TCP. Requests go to the pod's own address, as they would
without a sidecar, so that an application that listens on the loopback only stays private.
Source: https://istio.io/latest/docs/ops/configuration/traffic-management/network-topologies/,
https://istio.io/latest/blog/2021/upcoming-networking-changes/ (pod address instead of the loopback)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from discovery.plan.model import Destination, InboundPort, Protocol, Resolution, Route, RouteTable, Target, VirtualHost
from discovery.plan.origins import Origin, Problem
from discovery.plan.peer_authentication import PeerModes
from discovery.plan.routes import ANY_REQUEST, INBOUND_RETRIES
from discovery.plan.rules import DEFAULT_LIMITS
from discovery.plan.services import Entry, Port
from discovery.plan.workloads import ContainerPorts

MOST_PODS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Inbound:
    ports: tuple[InboundPort, ...]
    tables: tuple[RouteTable, ...]
    destinations: tuple[Destination, ...]
    problems: tuple[Problem, ...]


@lru_cache(maxsize=MOST_PODS)
def inbound(workload: str, ip: str, entries: tuple[Entry, ...], declared: ContainerPorts, modes: PeerModes) -> Inbound:
    """`entries`: the services that select the pod, oldest first; `workload`: `namespace/pod`."""
    problems: list[Problem] = []
    taken: dict[int, tuple[Protocol, Entry]] = {}
    origins: dict[int, list[Origin]] = {}
    for entry in entries:
        for port in entry.ports:
            number = _target(port, declared)
            if number is None:
                problems.append(_no_such_port(entry, port, workload))
                continue
            protocol, first = taken.setdefault(number, (port.protocol, entry))
            if protocol is not port.protocol:
                problems.append(_conflict(entry, port, first, protocol, number))
            origins.setdefault(number, []).append(entry.origin)
    protocols = {number: protocol for number, (protocol, _) in taken.items()}
    for number in (*(number for _, number in declared), *(number for number, _ in modes.ports)):
        protocols.setdefault(number, Protocol.TCP)
    ordered = sorted(protocols.items(), key=lambda item: name_of(item[0]))
    return Inbound(
        ports=tuple(_port(number, protocol, modes, origins.get(number, [])) for number, protocol in ordered),
        tables=tuple(_table(number) for number, protocol in ordered if protocol.is_http),
        destinations=tuple(_local(number, protocol, ip, taken.get(number)) for number, protocol in ordered),
        problems=tuple(problems),
    )


def name_of(port: int) -> str:
    return f"inbound|{port}||"


def _target(port: Port, declared: ContainerPorts) -> int | None:
    if isinstance(port.target, int):
        return port.target
    return next((number for name, number in declared if name == port.target), None)


def _port(number: int, protocol: Protocol, modes: PeerModes, services: list[Origin]) -> InboundPort:
    return InboundPort(
        port=number,
        protocol=protocol,
        peer_tls=modes.on(number),
        destination=name_of(number),
        route_table=name_of(number) if protocol.is_http else "",
        origins=tuple(dict.fromkeys((*services, *modes.origins))),
    )


def _table(number: int) -> RouteTable:
    route = Route("default", ANY_REQUEST, (Target(name_of(number)),), retries=INBOUND_RETRIES)
    return RouteTable(name_of(number), (VirtualHost(f"inbound|http|{number}", ("*",), (route,)),))


def _local(number: int, protocol: Protocol, ip: str, taken: tuple[Protocol, Entry] | None) -> Destination:
    entry = taken[1] if taken else None
    return Destination(
        name=name_of(number),
        resolution=Resolution.LOCAL,
        protocol=protocol,
        host=entry.host if entry else "",
        service=str(entry.key) if entry else "",
        address=ip or "127.0.0.1",
        port=number,
        limits=DEFAULT_LIMITS,
    )


def _no_such_port(entry: Entry, port: Port, workload: str) -> Problem:
    return Problem(
        Origin("Service", entry.namespace, entry.key.name, "spec.ports.targetPort"),
        f"no container of pod {workload} has a port named {port.target!r}: port {port.number} leads nowhere there",
        "name the container's port so, or write its number as targetPort",
    )


def _conflict(entry: Entry, port: Port, first: Entry, protocol: Protocol, number: int) -> Problem:
    return Problem(
        Origin("Service", entry.namespace, entry.key.name, "spec.ports"),
        f"port {number} of its pods is {port.protocol} here and {protocol} in the older Service "
        f"{first.namespace}/{first.key.name}: it is taken as {protocol}",
        "give both ports the same protocol, by name or appProtocol",
    )
