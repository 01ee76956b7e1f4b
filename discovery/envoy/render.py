"""From a Plan to Envoy's resources: pure, and quick for what was rendered before (`memo.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache, partial
from typing import Any

from discovery.envoy import clusters, routes
from discovery.envoy.context import Context
from discovery.envoy.endpoints import load_assignment
from discovery.envoy.gateways import gateway_listener
from discovery.envoy.inbound import VIRTUAL_INBOUND, virtual_inbound
from discovery.envoy.memo import Memo, Rendered, SharedSets, rendered
from discovery.envoy.outbound import VIRTUAL_OUTBOUND, outbound_listener, virtual_outbound
from discovery.layers import Entries, layered
from discovery.plan.model import Destination, EndpointSet, Layer, OutboundListener, Plan, Role, RouteTable
from mesh.wire import ResourceType, virtual_host_name
from mesh.xds import assemble_routes

__all__ = ["Resources", "assemble_routes", "render"]

Resources = dict[ResourceType, Entries]
"""type -> name -> (version, bytes). The version is a hash of the bytes. The bytes are the whole resource as a JSON
object with its `@type`, as it stands in a DiscoveryResponse, except virtual hosts: they have no `@type`, since they
only ever stand inside a route configuration (`assemble_routes` puts it together). Secrets do not come from plans."""

_CAPACITY_BYTES = 64 * 1024 * 1024
_SHARED = Memo(_CAPACITY_BYTES)
_NO_LAYER = Layer()
_SETS = SharedSets()


# As many of each as there are IP versions, TLS modes and ways of reporting: a handful, unless Telemetry
# makes them many.
@lru_cache(maxsize=64)
def _memo(*_of: object) -> Memo:
    return Memo(_CAPACITY_BYTES)


@cache
def _catch_all(context: Context, allow_any: bool) -> Rendered:
    return rendered(virtual_outbound(context, allow_any=allow_any))


def render(plan: Plan) -> Resources:
    """All resources of the plan's proxy. What Envoy refers to is always there: the catch-all clusters, an endpoint set
    (perhaps empty) for each cluster that asks for one, and in each outbound table a virtual host for unknown hosts."""
    proxy = plan.proxy
    ipv6 = any(":" in ip for ip in (proxy.ip, *proxy.other_ips))
    context = Context((proxy.identity.trust_domain, *plan.other_trust_domains), ipv6, plan.reporting)
    shared, own = plan.shared, plan.own
    if shared is None:
        shared, own = _NO_LAYER, Layer(plan.outbound, plan.route_tables, plan.destinations)
    gateway = proxy.role is Role.GATEWAY
    return {
        # Later ones win: a plan may name the built-in destinations itself.
        ResourceType.CLUSTERS: layered(
            _SETS(_clusters, (clusters.BUILT_IN, shared.destinations), context),
            _clusters((own.destinations,), context),
        ),
        ResourceType.ENDPOINTS: _endpoint_sets(plan, shared, own),
        ResourceType.LISTENERS: layered(_SETS(_outbound, (shared.outbound,), context), _listeners(plan, own, context)),
        ResourceType.ROUTES: layered(
            _SETS(_routes, (shared.route_tables,), gateway), _routes((own.route_tables,), gateway)
        ),
        # Own tables are those of no outbound listener, unless there are no shared ones.
        ResourceType.VIRTUAL_HOSTS: layered(
            _SETS(_virtual_hosts, (shared.route_tables, shared.outbound or own.outbound), plan.allow_any),
            _virtual_hosts((own.route_tables, own.outbound), plan.allow_any),
        ),
    }


def _clusters(of: tuple[tuple[Destination, ...], ...], context: Context) -> dict[str, Rendered]:
    memo = _memo(context)
    cluster = partial(clusters.cluster, trust_domains=context.trust_domains)
    return {each.name: memo.get(each, cluster) for destinations in of for each in destinations}


def _endpoint_sets(plan: Plan, shared: Layer, own: Layer) -> Entries:
    found = _SETS(_endpoints, (plan.endpoints, shared.destinations), None)
    return layered(found, {name: _empty(name) for name in _by_endpoints(own.destinations) if name not in found})


def _endpoints(of: tuple[Any, ...], _: None) -> dict[str, Rendered]:
    sets: tuple[EndpointSet, ...]
    sets, destinations = of
    found = {each.name: _SHARED.get(each, load_assignment) for each in sets}
    for name in _by_endpoints(destinations):
        if name not in found:
            found[name] = _empty(name)
    return found


def _by_endpoints(destinations: Iterable[Destination]) -> Iterator[str]:
    return (each.name for each in destinations if clusters.by_endpoints(each))


def _empty(name: str) -> Rendered:
    """Without an answer Envoy would warm the cluster for ever, and all listeners would wait for it."""
    return rendered(load_assignment(EndpointSet(name, ())))


def _outbound(of: tuple[tuple[OutboundListener, ...], ...], context: Context) -> dict[str, Rendered]:
    memo, outbound = _memo(context), partial(outbound_listener, context=context)
    return {each.name: memo.get(each, outbound) for listeners in of for each in listeners}


def _listeners(plan: Plan, own: Layer, context: Context) -> dict[str, Rendered]:
    """Those of this proxy alone."""
    memo, gateway = _memo(context), partial(gateway_listener, context=context)
    found = {each.name: memo.get(each, gateway) for each in plan.gateways}
    if plan.proxy.role is Role.GATEWAY:
        return found
    found |= _outbound((own.outbound,), context)
    found[VIRTUAL_OUTBOUND] = _catch_all(context, plan.allow_any)
    inbound = partial(virtual_inbound, default=plan.inbound_default, context=context)
    found[VIRTUAL_INBOUND] = _memo(context, plan.inbound_default).get(plan.inbound, inbound)
    return found


def _routes(of: tuple[tuple[RouteTable, ...], ...], gateway: bool) -> dict[str, Rendered]:
    memo, configuration = _memo("routes", gateway), partial(routes.route_configuration, gateway=gateway)
    return {each.name: memo.get(each, configuration) for tables in of for each in tables}


def _virtual_hosts(of: tuple[Any, ...], allow_any: bool) -> dict[str, Rendered]:
    tables: tuple[RouteTable, ...]
    outbound: tuple[OutboundListener, ...]
    tables, outbound = of
    fall_through = routes.ALLOW_ANY if allow_any else routes.BLOCK_ALL
    names = {listener.route_table for listener in outbound}
    found: dict[str, Rendered] = {}
    for table in tables:
        hosts = table.virtual_hosts
        if table.name in names and not any("*" in each.domains for each in hosts):
            hosts = (*hosts, fall_through)
        found.update(
            (virtual_host_name(table.name, each.name), _SHARED.get(each, routes.virtual_host)) for each in hosts
        )
    return found
