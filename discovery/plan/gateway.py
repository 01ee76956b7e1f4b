"""What a gateway proxy opens: listeners from Gateways, route tables from the VirtualServices that are bound to them.

Routes of several VirtualServices for one host are put one after the other, oldest first, those that take every request
last. Source: https://istio.io/latest/docs/reference/config/networking/gateway/,
https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from discovery.plan.following import Following
from discovery.plan.gateway_servers import Kind, Opening, merged, selected
from discovery.plan.hosts import narrower
from discovery.plan.index import Index
from discovery.plan.memo import Memo, Scopes
from discovery.plan.model import (
    Destination,
    GatewayListener,
    GatewayServer,
    GatewayTls,
    Protocol,
    Proxy,
    Role,
    Route,
    RouteTable,
    Target,
    VirtualHost,
)
from discovery.plan.origins import Origin, Problem, origin_of, problem_with
from discovery.plan.outbound import Routing, nowhere, same_table
from discovery.plan.routes import ANY_REQUEST, Routed, Side
from discovery.plan.services import Entry
from discovery.plan.targets import Catalogue
from discovery.plan.virtual_services import Bound, VirtualServices
from discovery.plan.workloads import ContainerPorts, container_ports
from mesh.istio.gateway import ServerTLSMode, ServerTLSSettings, TLSProtocol
from mesh.objects import Key, Secret
from mesh.snapshot import Snapshot

WILDCARD = "0.0.0.0"


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    listeners: tuple[GatewayListener, ...]
    tables: tuple[RouteTable, ...]
    destinations: tuple[Destination, ...]
    problems: tuple[Problem, ...]


NOTHING = Opened((), (), (), ())


def opened(scopes: Scopes, found: Index, routes: Routing, proxy: Proxy, snapshot: Snapshot) -> Opened:
    pod = snapshot.pods.get(Key(proxy.namespace, proxy.pod))
    if proxy.role is not Role.GATEWAY or pod is None:
        return NOTHING
    entries = found.services.of_pod(pod)
    declared = container_ports(pod)
    secrets = snapshot.secrets

    def make(memo: Memo, before: Opened | None) -> Opened:
        last = before.tables if before else ()
        build = _Build(memo, routes.catalogue, found.virtual_services, proxy, secrets, last)
        gateways = selected(found.gateways, dict(proxy.labels))
        openings, problems = merged(gateways, lambda number: _target(number, entries, declared))
        listeners = tuple(sorted((build.listener(port, some) for port, some in openings.items()), key=_name))
        tables = tuple(sorted(build.tables(openings), key=lambda table: table.name))
        return Opened(
            listeners=tuple(listener for listener in listeners if listener.servers),
            tables=tables,
            destinations=nowhere(memo, build.missing, routes.wanted),
            problems=(*problems, *build.problems),
        )

    parts = (found.gateways, found.virtual_services, routes, secrets, entries, declared)
    return scopes.build(("gateway", proxy.namespace, proxy.labels), parts, make)


def _target(number: int, entries: Iterable[Entry], declared: ContainerPorts) -> int:
    """Where the pod listens for `number`: the target port of its Service's port, if one has that number."""
    for entry in entries:
        port = entry.port(number)
        if port is not None:
            target = dict(declared).get(port.target, number) if isinstance(port.target, str) else port.target
            return target or number
    return number


def _name(listener: GatewayListener) -> str:
    return listener.name


class _Build(Following):
    """One build of a gateway."""

    def __init__(
        self,
        memo: Memo,
        catalogue: Catalogue,
        virtual_services: VirtualServices,
        proxy: Proxy,
        secrets: Mapping[Key, Secret],
        before: tuple[RouteTable, ...],
    ) -> None:
        super().__init__(memo, catalogue)
        self.before = before
        self.virtual_services = virtual_services
        self.proxy = proxy
        self.secrets = secrets

    # ---- listeners

    def listener(self, port: int, openings: list[Opening]) -> GatewayListener:
        if openings[0].kind is Kind.HTTP:
            origins = tuple(origin_of(opening.gateway, opening.at) for opening in openings)
            plain = GatewayServer(protocol=Protocol.HTTP, route_table=openings[0].route_table, origins=origins)
            return GatewayListener(f"{WILDCARD}_{port}", port, (plain,))
        servers = (self._server(opening) for opening in openings)
        return GatewayListener(f"{WILDCARD}_{port}", port, tuple(server for server in servers if server is not None))

    def _server(self, opening: Opening) -> GatewayServer | None:
        tls = _tls(opening.server.tls) if opening.kind.by_sni else None
        origins: tuple[Origin, ...] = (origin_of(opening.gateway, opening.at),)
        if opening.kind in (Kind.HTTPS, Kind.TLS):
            self._check_certificate(opening)
        if opening.kind is Kind.HTTPS:
            return GatewayServer(opening.sni, tls, Protocol.HTTP, opening.route_table, origins=origins)
        targets, one = self._tcp_targets(opening)
        if one is None:
            says = "no VirtualService that is bound to this Gateway has a tcp route for the port: it is not opened"
            self._problem(opening, "", says, f"bind one by spec.gateways: [{opening.gateway_name}]")
            return None
        protocol = Protocol.TLS if opening.kind is Kind.PASSTHROUGH else Protocol.TCP
        return GatewayServer(opening.sni, tls, protocol, targets=targets, origins=(*origins, origin_of(one.thing)))

    def _check_certificate(self, opening: Opening) -> None:
        tls = opening.server.tls
        if tls is None or tls.mode is ServerTLSMode.ISTIO_MUTUAL:
            return
        if tls.credential_name:
            if Key(self.proxy.namespace, tls.credential_name) not in self.secrets:
                says = f"there is no Secret {self.proxy.namespace}/{tls.credential_name}, where the gateway's pods are"
                hint = f"kubectl -n {self.proxy.namespace} create secret tls {tls.credential_name} --cert=... --key=..."
                self._problem(
                    opening,
                    ".tls.credentialName",
                    f"{says}: handshakes fail until there is one that discovery may read",
                    hint,
                )
        elif not (tls.server_certificate and tls.private_key):
            self._problem(
                opening, ".tls", "the server has no certificate: handshakes fail", "set credentialName to a TLS Secret"
            )

    def _tcp_targets(self, opening: Opening) -> tuple[tuple[Target, ...], Bound | None]:
        for one in self._bound(opening):
            found = self.tcp(one, opening.server.port.number) if any(self._shared_hosts(opening, one)) else None
            if found is not None:
                return found[0], one
        return (), None

    # ---- route tables

    def tables(self, openings: Mapping[int, list[Opening]]) -> list[RouteTable]:
        by_table: dict[str, list[Opening]] = {}
        for some in openings.values():
            for opening in some:
                if opening.route_table:
                    by_table.setdefault(opening.route_table, []).append(opening)
        return [same_table(RouteTable(name, self._hosts(some)), self.before) for name, some in by_table.items()]

    def _hosts(self, openings: list[Opening]) -> tuple[VirtualHost, ...]:
        routed: dict[str, dict[Bound, Routed]] = {}
        redirecting: set[str] = set()
        port = openings[0].server.port.number
        for opening in openings:
            redirects = opening.server.tls is not None and opening.server.tls.https_redirect
            for one in self._bound(opening):
                for host in self._shared_hosts(opening, one):
                    routed.setdefault(host, {}).setdefault(one, self._routed(opening, one))
                    if redirects:
                        redirecting.add(host)
            if redirects:
                redirecting.update(name for _, name in opening.hosts)
        hosts = [
            self.memo(_virtual_host, host, port, tuple(routed.get(host, {}).items()), host in redirecting)
            for host in sorted({*routed, *redirecting})
        ]
        if not hosts:
            for opening in openings:
                says = "no VirtualService is bound to this Gateway with one of these hosts: requests get 404"
                hint = f"bind one by spec.gateways: [{opening.gateway_name}], with hosts that these cover"
                self._problem(opening, ".hosts", says, hint)
            return (self.memo(_nobody, port),)
        return tuple(hosts)

    def _bound(self, opening: Opening) -> tuple[Bound, ...]:
        """The VirtualServices that are bound to the Gateway and that this proxy may see, oldest first."""
        bound = self.virtual_services.of_gateway.get(opening.gateway_name, ())
        return tuple(one for one in bound if one.is_visible(self.proxy.namespace))

    def _shared_hosts(self, opening: Opening, one: Bound) -> tuple[str, ...]:
        names = opening.names_for(one.namespace)
        shared = (narrower(name, host) for host in one.hosts for name in names)
        return tuple(dict.fromkeys(host for host in shared if host is not None))

    def _routed(self, opening: Opening, one: Bound) -> Routed:
        side = Side(opening.gateway_name, self.proxy.namespace, self.proxy.labels)
        return self.http(one, opening.server.port.number, side)

    def _problem(self, opening: Opening, field: str, says: str, hint: str) -> None:
        self.problems.append(problem_with(opening.gateway, f"{opening.at}{field}", says, hint))


def _virtual_host(host: str, port: int, routed: tuple[tuple[Bound, Routed], ...], require_tls: bool) -> VirtualHost:
    routes: list[Route] = [route for _, found in routed for route in found.routes]
    return VirtualHost(
        name=f"{host}:{port}",
        domains=(host,) if host == "*" else (host, f"{host}:{port}"),
        routes=tuple(sorted(routes, key=lambda route: route.match == ANY_REQUEST)),
        require_tls=require_tls,
        origins=tuple(origin_of(one.thing) for one, _ in routed),
    )


def _nobody(port: int) -> VirtualHost:
    """A table without hosts would be refused: all requests get 404 here."""
    return VirtualHost(f"blackhole:{port}", ("*",), ())


def _tls(tls: ServerTLSSettings | None) -> GatewayTls:
    if tls is None or not tls.terminates:
        return GatewayTls(passthrough=True)
    return GatewayTls(
        credential=tls.credential_name,
        certificate_file=tls.server_certificate,
        private_key_file=tls.private_key,
        ca_file=tls.ca_certificates,
        client_certificates=tls.mode is ServerTLSMode.MUTUAL,
        mesh=tls.mode is ServerTLSMode.ISTIO_MUTUAL,
        min_version=_version(tls.min_protocol_version),
        max_version=_version(tls.max_protocol_version),
    )


def _version(version: TLSProtocol) -> str:
    return "" if version is TLSProtocol.TLS_AUTO else version.value
