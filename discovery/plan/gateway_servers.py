"""Which servers a gateway proxy opens, by port: Gateway objects that select it, merged.

On one port there can be plain HTTP servers (one listener, one route table), or TLS servers (told apart by SNI), or one
TCP server. What does not fit what an older Gateway opened is left out, and named as a problem.
Source: https://istio.io/latest/docs/reference/config/networking/gateway/ (Server, Port, ServerTLSSettings)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from discovery.plan.origins import Problem, problem_with
from mesh.istio.base import IstioObject
from mesh.istio.gateway import HTTP_PROTOCOLS, TLS_PROTOCOLS, Gateway, Server


class Kind(Enum):
    """HTTP: plain, by Host. HTTPS: ended here, then by Host. TLS: ended here, then TCP. PASSTHROUGH: by SNI. TCP."""

    HTTP = auto()
    HTTPS = auto()
    TLS = auto()
    PASSTHROUGH = auto()
    TCP = auto()

    @property
    def by_sni(self) -> bool:
        return self in (Kind.HTTPS, Kind.TLS, Kind.PASSTHROUGH)


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """One server of one Gateway. `hosts`: namespace (`*`: of any) and name. `port` is where the proxy listens."""

    gateway: IstioObject[Gateway]
    index: int
    server: Server
    kind: Kind
    port: int
    hosts: tuple[tuple[str, str], ...]

    @property
    def gateway_name(self) -> str:
        return f"{self.gateway.namespace}/{self.gateway.name}"

    @property
    def at(self) -> str:
        return f"spec.servers[{self.index}]"

    @property
    def route_table(self) -> str:
        """Istio's name of the table; "" where there is none."""
        if self.kind is Kind.HTTP:
            return f"http.{self.port}"
        if self.kind is Kind.HTTPS:
            port = self.server.port
            return f"https.{port.number}.{port.name}.{self.gateway.name}.{self.gateway.namespace}"
        return ""

    @property
    def sni(self) -> tuple[str, ...]:
        """Empty for every name, and for plain text."""
        names = tuple(dict.fromkeys(name for _, name in self.hosts)) if self.kind.by_sni else ()
        return () if "*" in names else names

    def names_for(self, namespace: str) -> tuple[str, ...]:
        """The hosts that VirtualServices of `namespace` may bind to."""
        return tuple(name for owner, name in self.hosts if owner in ("*", namespace))


@dataclass(slots=True)
class _Port:
    first: Opening
    openings: list[Opening] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def selected(gateways: Iterable[IstioObject[Gateway]], labels: dict[str, str]) -> tuple[IstioObject[Gateway], ...]:
    """The Gateways whose selector the proxy's labels have, from all namespaces; none selects all."""
    return tuple(gateway for gateway in gateways if gateway.spec.selector.items() <= labels.items())


def merged(
    gateways: Iterable[IstioObject[Gateway]], target: Callable[[int], int]
) -> tuple[dict[int, list[Opening]], list[Problem]]:
    """Openings by port, Gateways oldest first; `target` is where the proxy listens for a port of its Service."""
    ports: dict[int, _Port] = {}
    problems: list[Problem] = []
    tables: set[str] = set()
    for gateway in gateways:
        for index, server in enumerate(gateway.spec.servers):
            opening = _opening(gateway, index, server, target(server.port.number))
            port = ports.get(opening.port)
            why = _in_the_way(opening, port, tables) if port else ""
            if why:
                says = f"{why}: this server is left out"
                problems.append(problem_with(gateway, opening.at, says, "use another port, host or port name"))
                continue
            port = ports.setdefault(opening.port, _Port(opening))
            port.openings.append(opening)
            if opening.kind.by_sni:
                port.names.update(name for _, name in opening.hosts)
            if opening.kind is Kind.HTTPS:
                tables.add(opening.route_table)
    return {number: port.openings for number, port in ports.items()}, problems


def _opening(gateway: IstioObject[Gateway], index: int, server: Server, port: int) -> Opening:
    hosts = []
    for host in server.hosts:
        owner, slash, name = host.lower().rpartition("/")
        hosts.append((gateway.namespace if owner == "." else owner if slash else "*", name))
    return Opening(gateway, index, server, _kind(server), port, tuple(hosts))


def _kind(server: Server) -> Kind:
    protocol = server.port.protocol.upper()
    if protocol in HTTP_PROTOCOLS:
        return Kind.HTTP
    if protocol not in TLS_PROTOCOLS:
        return Kind.TCP
    if server.tls is None or not server.tls.terminates:
        return Kind.PASSTHROUGH
    return Kind.HTTPS if protocol == "HTTPS" else Kind.TLS


def _in_the_way(opening: Opening, port: _Port, tables: set[str]) -> str:
    """Why an opening cannot join those that its port has; "" when it can."""
    first = port.first
    before = f"Gateway {first.gateway_name} ({first.at}) has port {opening.port}"
    if opening.kind.by_sni != first.kind.by_sni or Kind.TCP in (opening.kind, first.kind):
        return f"{before} for {first.server.port.protocol.upper()} already"
    if opening.kind is Kind.HTTP:
        return ""
    doubled = sorted({name for _, name in opening.hosts} & port.names)
    if doubled:
        return f"{before} and {', '.join(doubled)} already"
    if opening.route_table and opening.route_table in tables:
        return f"{before} under the same port name"
    return ""
