"""From a snapshot to the plan of one proxy.

    plan(snapshot, proxy_of(snapshot, Key("default", "reviews-v1-0")))

Pure: the same snapshot and proxy give an equal plan. What proxies share is computed once a change, and parts that a
change does not touch are the very same objects as before it (docs/adr/0030).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from discovery.plan.destinations import ALWAYS, Memory, nobody_answers, provide
from discovery.plan.endpoints import NOBODY, Backends
from discovery.plan.gateway import Opened, opened
from discovery.plan.inbound import MOST_PODS, Inbound, inbound
from discovery.plan.index import Index, index
from discovery.plan.memo import Memo, Scopes, kept
from discovery.plan.model import Destination, EndpointSet, Layer, OutboundListener, Plan, Proxy, Role, RouteTable
from discovery.plan.origins import Problem, unique
from discovery.plan.outbound import Headless, Routing, View, routing, tcp_listener
from discovery.plan.peer_authentication import PeerModes
from discovery.plan.places import place_of, seen_from
from discovery.plan.services import Entry
from discovery.plan.telemetry import reachable
from discovery.plan.virtual_services import mesh_hosts
from discovery.plan.workloads import container_ports, is_gateway
from mesh.annotations import PROXY_CONFIG
from mesh.errors import NotFound
from mesh.identity import Identity
from mesh.objects import Key, Pod
from mesh.settings import OutboundMode
from mesh.snapshot import Snapshot

SERVICE_LABELS = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")

N = TypeVar("N")

_SHARED = Scopes()
_by_name = attrgetter("name")
_NO_INBOUND = Inbound((), (), (), ())


def proxy_of(snapshot: Snapshot, key: Key) -> Proxy:
    """The proxy in pod `key`; NotFound while the pod is not known."""
    pod = snapshot.pods.get(key)
    if pod is None:
        raise NotFound(f"there is no pod {key}", hint="it may be known in a moment: try again")
    return _proxy_in(pod, snapshot.settings.trust_domain)


@lru_cache(maxsize=MOST_PODS)
def _proxy_in(pod: Pod, trust_domain: str) -> Proxy:
    key, labels = pod.meta.key, pod.meta.labels
    return Proxy(
        namespace=key.namespace,
        pod=key.name,
        ip=pod.ip,
        identity=Identity(trust_domain, key.namespace, pod.service_account),
        role=Role.GATEWAY if is_gateway(pod) else Role.SIDECAR,
        labels=tuple(sorted(labels.items())),
        other_ips=pod.other_ips,
        service=next((labels[name] for name in SERVICE_LABELS if labels.get(name)), key.name),
    )


def plan(snapshot: Snapshot, proxy: Proxy, scopes: Scopes | None = None) -> Plan:
    """What `proxy` should do. `scopes` holds what earlier plans may lend (by default: those of this process)."""
    scopes = _SHARED if scopes is None else scopes
    found = index(snapshot, scopes)
    labels = tuple(pair for pair in proxy.labels if pair[0] in found.source_labels)
    view = View(proxy.namespace, proxy.role, labels)
    seen = _seen(scopes, found, view, snapshot.settings.enable_auto_mtls)
    routes, clusters, problems = seen.routes, seen.clusters, seen.problems
    endpoints = _endpoints(scopes, snapshot, found, clusters, view, proxy)
    arriving = _inbound(snapshot, found, proxy)
    entering = opened(scopes, found, routes, proxy, snapshot)
    default = _modes(found, proxy).default
    mode = snapshot.settings.outbound_traffic_policy.mode
    key = Key(proxy.namespace, proxy.pod)
    proxy_config = _proxy_config(snapshot, key)
    reporting = found.telemetries.of_workload(proxy.namespace, proxy.labels, proxy_config)
    reporting = reachable(reporting, seen.names)
    other_domains = snapshot.settings.other_trust_domains
    told = found.telemetries.problems_of(key, proxy_config)
    parts = (arriving, entering, default, mode, reporting, other_domains, problems, told, endpoints)
    last = clusters.plans.get(proxy)
    if last is not None and last[0] == parts:
        return last[1]
    layers = seen.shared.layers(arriving, entering, proxy)
    own = (*arriving.problems, *entering.problems, *told)
    made = Plan(
        proxy=proxy,
        outbound=layers.outbound,
        inbound=arriving.ports,
        inbound_default=default,
        gateways=entering.listeners,
        route_tables=layers.route_tables,
        destinations=layers.destinations,
        endpoints=endpoints.sets,
        allow_any=mode is OutboundMode.ALLOW_ANY,
        reporting=reporting,
        other_trust_domains=other_domains,
        problems=unique((*problems, *own)) if own else problems,
        shared=layers.shared,
        own=layers.own,
    )
    clusters.plans[proxy] = (parts, made)
    return made


def _proxy_config(snapshot: Snapshot, key: Key) -> str:
    pod = snapshot.pods.get(key)
    return pod.meta.annotations.get(PROXY_CONFIG, "") if pod is not None else ""


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What all proxies of a view have in common."""

    routes: Routing
    clusters: Clusters
    shared: _Shared
    problems: tuple[Problem, ...]
    names: frozenset[str]
    """Of all destinations."""


def _seen(scopes: Scopes, found: Index, view: View, auto_mtls: bool) -> _Seen:
    """Looked up once for each of many proxies, so as one thing."""

    def make(*_: object) -> _Seen:
        routes = _routing(scopes, found, view)
        clusters = _clusters(scopes, found, routes, view, auto_mtls)
        shared = _shared(scopes, routes, clusters, view, auto_mtls)
        names = frozenset(each.name for each in clusters.destinations)
        return _Seen(routes, clusters, shared, _problems(scopes, found, routes, clusters, view), names)

    return scopes.build(("seen", view), (found, auto_mtls), make)


def _routing(scopes: Scopes, found: Index, view: View) -> Routing:
    mesh = scopes.build(
        ("mesh hosts", view.namespace),
        (found.virtual_services,),
        lambda memo, _: mesh_hosts(found.virtual_services, view.namespace),
    )
    return scopes.build(
        ("routing", view),
        (found.services, found.rules, mesh),
        lambda memo, before: routing(memo, before, found.services, found.rules, mesh, view),
    )


# ---- destinations with their endpoints


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    destinations: tuple[Destination, ...]
    endpoints: tuple[EndpointSet, ...]
    listeners: tuple[OutboundListener, ...]
    """Of headless services; by endpoint, so they come and go with them."""
    problems: tuple[Problem, ...]
    memory: Memory
    plans: dict[Proxy, tuple[tuple[object, ...], Plan]]
    """Those made with it, and what else they were made of: they go when it goes."""


def _clusters(scopes: Scopes, found: Index, routes: Routing, view: View, auto_mtls: bool) -> Clusters:
    backends = found.backends.of

    def make(memo: Memo, before: Clusters | None) -> Clusters:
        known = before.memory if before else {}
        memory: Memory = {want: provide(want, backends, known, view.role, auto_mtls) for want in routes.wanted}
        return Clusters(
            destinations=kept(before.destinations if before else (), _sorted_destinations(memory, routes)),
            endpoints=_sorted_endpoints(memory),
            listeners=kept(before.listeners if before else (), _headless(memo, routes.headless, backends)),
            problems=tuple(_unanswered(memo, routes.entries, backends)),
            memory=memory,
            plans={},
        )

    return scopes.build(("clusters", view, auto_mtls), (routes, found.backends), make)


def _sorted_destinations(memory: Memory, routes: Routing) -> tuple[Destination, ...]:
    provided = [made.destination for made in memory.values()]
    return tuple(sorted((*provided, *routes.nowhere, *ALWAYS), key=_by_name))


def _sorted_endpoints(memory: Memory) -> tuple[EndpointSet, ...]:
    return tuple(sorted((made.endpoints for made in memory.values() if made.endpoints is not None), key=_by_name))


def _headless(
    memo: Memo, headless: tuple[Headless, ...], backends: Mapping[Key, Backends]
) -> tuple[OutboundListener, ...]:
    listeners: dict[str, OutboundListener] = {}
    for one in headless:
        for endpoint in backends.get(one.entry.key, NOBODY).endpoints.get(one.port.name, ()):
            for address in (endpoint.address, *endpoint.also):
                listener = memo(tcp_listener, address, one.port, one.targets, (one.entry.origin,))
                listeners.setdefault(listener.name, listener)
    return tuple(listeners.values())


def _unanswered(memo: Memo, entries: tuple[Entry, ...], backends: Mapping[Key, Backends]) -> list[Problem]:
    found = (memo(nobody_answers, entry, backends.get(entry.key, NOBODY)) for entry in entries)
    return [problem for problem in found if problem is not None]


@dataclass(frozen=True, slots=True, eq=False)
class Endpoints:
    """The endpoint sets as they look from one place."""

    sets: tuple[EndpointSet, ...]


def _endpoints(
    scopes: Scopes, snapshot: Snapshot, found: Index, clusters: Clusters, view: View, proxy: Proxy
) -> Endpoints:
    pod = snapshot.pods.get(Key(proxy.namespace, proxy.pod))
    place = place_of(pod, snapshot.nodes, found.services.near, found.backends.mixed)
    return scopes.build(
        ("endpoints", view, place),
        (clusters, found.regions),
        lambda memo, _: Endpoints(seen_from(memo, place, clusters.endpoints, clusters.memory, found.regions)),
    )


# ---- putting it together


@dataclass(frozen=True, slots=True, eq=False)
class _Layers:
    outbound: tuple[OutboundListener, ...]
    route_tables: tuple[RouteTable, ...]
    destinations: tuple[Destination, ...]
    shared: Layer
    own: Layer


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """What the proxies of a view have in common. Not touched by an endpoint that changes its readiness only."""

    layer: Layer
    headless: frozenset[str]
    """Addresses that have listeners of headless services."""
    made: dict[tuple[Inbound, Opened, frozenset[str]], _Layers]

    def layers(self, arriving: Inbound, entering: Opened, proxy: Proxy) -> _Layers:
        # A pod that dials its own address never passes the outbound listeners.
        mine = self.headless & {proxy.ip, *proxy.other_ips}
        key = (arriving, entering, mine)
        if key not in self.made:
            self.made[key] = self._make(arriving, entering, mine)
        return self.made[key]

    def _make(self, arriving: Inbound, entering: Opened, mine: frozenset[str]) -> _Layers:
        shared = self.layer
        own = Layer(
            route_tables=(*arriving.tables, *entering.tables),
            destinations=(*arriving.destinations, *entering.destinations),
        )
        outbound = shared.outbound
        if mine:
            outbound = tuple(one for one in outbound if one.address not in mine)
            shared, own = replace(shared, outbound=()), replace(own, outbound=outbound)
        return _Layers(
            outbound=outbound,
            route_tables=_united(shared.route_tables, own.route_tables),
            destinations=_united(shared.destinations, own.destinations),
            shared=shared,
            own=own,
        )


def _shared(scopes: Scopes, routes: Routing, clusters: Clusters, view: View, auto_mtls: bool) -> _Shared:
    def make(*_: object) -> _Shared:
        listeners = {one.name: one for one in (*clusters.listeners, *routes.listeners)}
        layer = Layer(
            outbound=tuple(sorted(listeners.values(), key=_by_name)),
            route_tables=tuple(sorted(routes.tables, key=_by_name)),
            destinations=clusters.destinations,
        )
        return _Shared(layer, frozenset(one.address for one in clusters.listeners), {})

    return scopes.build(("shared", view, auto_mtls), (routes, clusters.destinations, clusters.listeners), make)


def _united(shared: tuple[N, ...], own: tuple[N, ...]) -> tuple[N, ...]:
    if not own:
        return shared
    by_name = {_by_name(one): one for one in (*shared, *own)}
    return tuple(by_name[name] for name in sorted(by_name))


def _modes(found: Index, proxy: Proxy) -> PeerModes:
    return found.peers.of_workload(proxy.namespace, dict(proxy.labels))


def _inbound(snapshot: Snapshot, found: Index, proxy: Proxy) -> Inbound:
    """Gateways have none: their ports are those of their Gateway objects."""
    pod = snapshot.pods.get(Key(proxy.namespace, proxy.pod))
    if pod is None or proxy.role is Role.GATEWAY:
        return _NO_INBOUND
    entries = tuple(entry for entry in found.services.of_pod(pod) if not entry.is_external)
    workload = f"{proxy.namespace}/{proxy.pod}"
    return inbound(workload, proxy.ip, entries, container_ports(pod), _modes(found, proxy))


def _problems(scopes: Scopes, found: Index, routes: Routing, clusters: Clusters, view: View) -> tuple[Problem, ...]:
    parts = (found.problems, routes.problems, clusters.problems)
    return scopes.build(("problems", view), parts, lambda *_: unique(chain.from_iterable(parts)))
