"""What the sidecars of one namespace do with requests that leave their pods: listeners and route tables.

HTTP: all services of one port share a listener on every address and a route table, told apart by Host. TCP: a listener
for each cluster IP and port, which is more specific and so goes first where a port has both. Headless TCP services have
no address of their own: a listener for each of their endpoints.
Source: https://istio.io/latest/docs/ops/configuration/traffic-management/traffic-routing/ (and, for a host without a
service, that its routes hold on port 80 or on the ports of the VirtualService's other hosts).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter, is_

from discovery.plan.destinations import Wanted, wanted
from discovery.plan.following import Following
from discovery.plan.hosts import bracketed, covers, spellings, with_port
from discovery.plan.memo import Memo
from discovery.plan.model import (
    Destination,
    OutboundListener,
    Protocol,
    Resolution,
    Role,
    RouteTable,
    Target,
    VirtualHost,
)
from discovery.plan.origins import Origin, Problem, origin_of, problem_with
from discovery.plan.routes import Routed, Side, default_route
from discovery.plan.rules import Rule, Rules
from discovery.plan.services import Entry, Port, Services, visible
from discovery.plan.targets import Catalogue, Resolved
from discovery.plan.virtual_services import Bound, MeshHosts
from mesh.istio.virtual_service import MESH_GATEWAY
from mesh.settings import CLUSTER_DOMAIN

WILDCARD = "0.0.0.0"
PORT_OF_HOSTS_WITHOUT_SERVICE = 80
_name = attrgetter("name")


@dataclass(frozen=True, slots=True)
class View:
    """Whose plan it is, as far as it matters to routes: proxies with equal views share everything made here."""

    namespace: str
    role: Role
    labels: tuple[tuple[str, str], ...]

    @property
    def side(self) -> Side:
        return Side(MESH_GATEWAY, self.namespace, self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Headless:
    """A TCP port of a headless service: a listener for each endpoint that it has."""

    entry: Entry
    port: Port
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """All that follows from services and rules, without endpoints."""

    catalogue: Catalogue
    entries: tuple[Entry, ...]
    wanted: tuple[Wanted, ...]
    listeners: tuple[OutboundListener, ...]
    tables: tuple[RouteTable, ...]
    headless: tuple[Headless, ...]
    nowhere: tuple[Destination, ...]
    problems: tuple[Problem, ...]


def catalogue_of(memo: Memo, services: Services, rules: Rules, namespace: str) -> tuple[Catalogue, tuple[Entry, ...]]:
    """What clients of `namespace` can name, and the services that they see."""
    entries = visible(services.entries, namespace)
    found: dict[Entry, Rule | None] = {}

    def rule(entry: Entry) -> Rule | None:
        if entry not in found:
            found[entry] = rules.find(memo, entry.host, entry.namespace, namespace)
        return found[entry]

    by_host = services.by_host
    if len(entries) != len(services.entries):
        by_host = {entry.host: entry for entry in entries}
    return Catalogue(by_host, rule, CLUSTER_DOMAIN), entries


def all_wanted(memo: Memo, catalogue: Catalogue, entries: Iterable[Entry]) -> tuple[Wanted, ...]:
    """A destination for each port of each service, and for each subset; none for mere names of other services."""
    wants: list[Wanted] = []
    for entry in entries:
        rule = catalogue.rule(entry)
        alias = catalogue.aliased(entry)
        for port in entry.ports:
            if alias is not None and alias.port(port.number) is not None:
                continue
            wants.append(memo(wanted, entry, port, "", rule))
            if rule is not None:
                wants.extend(memo(wanted, entry, port, subset, rule) for subset in rule.subsets)
    return tuple(wants)


def nowhere(memo: Memo, names: Iterable[str], wants: Iterable[Wanted]) -> tuple[Destination, ...]:
    """Destinations that answer 503, for names that nothing stands behind."""
    known = {want.name for want in wants}
    return tuple(memo(_nowhere, name) for name in sorted(set(names) - known))


def _nowhere(name: str) -> Destination:
    return Destination(name, Resolution.NOWHERE, Protocol.HTTP, host=name.rpartition("|")[2])


def routing(
    memo: Memo, before: Routing | None, services: Services, rules: Rules, mesh: MeshHosts, view: View
) -> Routing:
    catalogue, entries = catalogue_of(memo, services, rules, view.namespace)
    wants = all_wanted(memo, catalogue, entries)
    if view.role is Role.GATEWAY:
        return Routing(catalogue, entries, wants, (), (), (), (), ())
    build = _Build(memo, catalogue, mesh, view, before.tables if before else ())
    tables = build.tables(entries)
    listeners, headless = build.tcp_listeners(entries)
    return Routing(
        catalogue=catalogue,
        entries=entries,
        wanted=wants,
        listeners=(*(memo(_http_listener, int(table.name)) for table in tables), *listeners),
        tables=tables,
        headless=headless,
        nowhere=nowhere(memo, build.missing, wants),
        problems=(*mesh.problems, *build.problems),
    )


def _http_listener(port: int) -> OutboundListener:
    # Its services stand in the route table's virtual hosts, each with its origins.
    return OutboundListener(f"{WILDCARD}_{port}", WILDCARD, port, Protocol.HTTP, route_table=str(port))


class _Build(Following):
    """One build of a view's tables and listeners."""

    def __init__(
        self, memo: Memo, catalogue: Catalogue, mesh: MeshHosts, view: View, before: tuple[RouteTable, ...]
    ) -> None:
        super().__init__(memo, catalogue)
        self.before = before
        self.mesh = mesh
        self.view = view
        self.side = view.side

    # ---- HTTP

    def tables(self, entries: tuple[Entry, ...]) -> tuple[RouteTable, ...]:
        by_port: dict[int, list[tuple[Entry, Port]]] = {}
        for entry in entries:
            for port in entry.ports:
                if port.protocol.is_http:
                    by_port.setdefault(port.number, []).append((entry, port))
        extra = self._hosts_without_service(by_port)
        tables = []
        for number in sorted(by_port, key=str):
            hosts = [self._service(entry, port) for entry, port in by_port[number]]
            for host, one in extra.get(number, ()):
                found = self._host(host, one, number)
                if found is not None:
                    hosts.append(found)
            tables.append(same_table(RouteTable(str(number), self._distinct(number, hosts)), self.before))
        return tuple(tables)

    def _service(self, entry: Entry, port: Port) -> VirtualHost:
        one = self.mesh.find(entry.host)
        if one is not None:
            found = self.http(one, port.number, self.side)
            if found.routes:
                return self.memo(_service_host, entry, port.number, self.view.namespace, one, found)
        target = self.catalogue.default(entry, port)
        return self.memo(_default_host, entry, port.number, self.view.namespace, target)

    def _host(self, host: str, one: Bound, port: int) -> VirtualHost | None:
        found = self.http(one, port, self.side)
        return self.memo(_plain_host, host, port, one, found) if found.routes else None

    def _hosts_without_service(
        self, by_port: dict[int, list[tuple[Entry, Port]]]
    ) -> dict[int, list[tuple[str, Bound]]]:
        """Port -> hosts of VirtualServices that are no service's."""
        ports_of: dict[str, list[int]] = {}
        for number, found in by_port.items():
            for entry, _ in found:
                ports_of.setdefault(entry.host, []).append(number)
        extra: dict[int, list[tuple[str, Bound]]] = {}
        for host, one in self.mesh.by_host.items():
            if not one.spec.http or host in self.catalogue.by_host:
                continue
            if host.startswith("*") and any(covers(host, other) for other in self.catalogue.by_host):
                continue
            ports = {number for other in one.hosts for number in ports_of.get(other, ())}
            if not ports and any(other in self.catalogue.by_host for other in one.hosts):
                continue
            ports = ports or {PORT_OF_HOSTS_WITHOUT_SERVICE}
            for number in ports:
                extra.setdefault(number, []).append((host, one))
            if one.gateways == (MESH_GATEWAY,):
                self._no_service(host, one, sorted(ports))
        return extra

    def _no_service(self, host: str, one: Bound, ports: list[int]) -> None:
        index = next(i for i, name in enumerate(one.spec.hosts) if name.lower() in (host, host.partition(".")[0]))
        full = f"{host}.svc.{CLUSTER_DOMAIN}"
        hint = "create the service, or correct the name (short names are of the VirtualService's namespace)"
        if full in self.catalogue.by_host:
            hint = f"write {full}: only a name without dots is completed"
        says = f"there is no service {host}: the routes hold for HTTP on port {', '.join(map(str, ports))} only"
        self.problems.append(problem_with(one.thing, f"spec.hosts[{index}]", says, hint))

    def _distinct(self, port: int, hosts: list[VirtualHost]) -> tuple[VirtualHost, ...]:
        """The hosts without domains that an earlier one has: Envoy refuses a table with a domain in two hosts."""
        if len(set(chain.from_iterable(host.domains for host in hosts))) == sum(len(host.domains) for host in hosts):
            return tuple(sorted(hosts, key=_name))
        taken: dict[str, VirtualHost] = {}
        kept: list[VirtualHost] = []
        for host in hosts:
            doubled = [domain for domain in host.domains if domain in taken]
            if doubled:
                first = taken[doubled[0]]
                self.problems.append(_doubled(host, first, doubled, port))
                host = self.memo(_without, host, tuple(doubled), first.name == host.name)
                if not host.domains:
                    continue
            for domain in host.domains:
                taken[domain] = host
            kept.append(host)
        return tuple(sorted(kept, key=_name))

    # ---- TCP

    def tcp_listeners(self, entries: tuple[Entry, ...]) -> tuple[tuple[OutboundListener, ...], tuple[Headless, ...]]:
        listeners: dict[str, OutboundListener] = {}
        headless: list[Headless] = []
        for entry in entries:
            for port in entry.ports:
                if port.protocol.is_http:
                    continue
                targets, origins = self._tcp_targets(entry, port)
                if entry.service.headless:
                    headless.append(self.memo(Headless, entry, port, targets))
                for address in entry.service.cluster_ips:
                    listener = self.memo(tcp_listener, address, port, targets, origins)
                    first = listeners.setdefault(listener.name, listener)
                    if first is not listener:
                        self.problems.append(_same_address(entry, first, port))
        return tuple(listeners.values()), tuple(headless)

    def _tcp_targets(self, entry: Entry, port: Port) -> tuple[tuple[Target, ...], tuple[Origin, ...]]:
        one = self.mesh.find(entry.host)
        found = self.tcp(one, port.number) if one is not None else None
        if one is not None and found is not None:
            targets, index = found
            return targets, (entry.origin, origin_of(one.thing, f"spec.tcp[{index}]"))
        return (Target(self.catalogue.default(entry, port).name),), (entry.origin,)


def tcp_listener(
    address: str, port: Port, targets: tuple[Target, ...], origins: tuple[Origin, ...]
) -> OutboundListener:
    return OutboundListener(
        f"{address}_{port.number}", address, port.number, port.protocol, targets=targets, origins=origins
    )


def same_table(table: RouteTable, before: Iterable[RouteTable]) -> RouteTable:
    """The table of that name in `before`, if it has the very same hosts."""
    last = next((other for other in before if other.name == table.name), None)
    if last is None or len(last.virtual_hosts) != len(table.virtual_hosts):
        return table
    return last if all(map(is_, last.virtual_hosts, table.virtual_hosts)) else table


def _domains(entry: Entry, port: int, namespace: str) -> tuple[str, ...]:
    names = spellings(entry.key.name.lower(), entry.namespace, CLUSTER_DOMAIN, namespace)
    if entry.service.headless:
        names = (*names, *(f"*.{name}" for name in names))  # a pod of a stateful set: <pod>.<service>...
    names = (*names, *map(bracketed, entry.service.cluster_ips))
    return with_port(names, port)


def _default_host(entry: Entry, port: int, namespace: str, target: Resolved) -> VirtualHost:
    return VirtualHost(
        name=f"{entry.host}:{port}",
        domains=_domains(entry, port, namespace),
        routes=(default_route("default", target),),
        origins=(entry.origin,),
    )


def _service_host(entry: Entry, port: int, namespace: str, one: Bound, routed: Routed) -> VirtualHost:
    return VirtualHost(
        name=f"{entry.host}:{port}",
        domains=_domains(entry, port, namespace),
        routes=routed.routes,
        origins=(entry.origin, origin_of(one.thing)),
    )


def _plain_host(host: str, port: int, one: Bound, routed: Routed) -> VirtualHost:
    return VirtualHost(
        name=f"{host}:{port}",
        domains=with_port((bracketed(host),), port),
        routes=routed.routes,
        origins=(origin_of(one.thing),),
    )


def _without(host: VirtualHost, domains: tuple[str, ...], same_name: bool) -> VirtualHost:
    kept = tuple(domain for domain in host.domains if domain not in domains)
    return replace(host, name=f"{host.name}#2" if same_name else host.name, domains=kept)


def _doubled(host: VirtualHost, first: VirtualHost, domains: list[str], port: int) -> Problem:
    return Problem(
        host.origins[-1],
        f"{', '.join(domains)} on port {port} belongs to {first.name} already: it keeps the requests to it",
        "use the full name of the host that is meant, or give one of the two another address",
    )


def _same_address(entry: Entry, first: OutboundListener, port: Port) -> Problem:
    other = first.origins[0]
    return Problem(
        Origin("Service", entry.namespace, entry.key.name, "spec.clusterIP"),
        f"Service {other.namespace}/{other.name} has the same address and port {port.number}, and is older: it stands",
        "give one of the two services another address",
    )
