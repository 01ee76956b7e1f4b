"""From a Plan to Envoy's resources: pure, and quick for what was rendered before (`memo.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial

from discovery.envoy import clusters, routes
from discovery.envoy.context import Context
from discovery.envoy.endpoints import load_assignment
from discovery.envoy.gateways import gateway_listener
from discovery.envoy.inbound import VIRTUAL_INBOUND, virtual_inbound
from discovery.envoy.memo import Memo, Rendered, rendered
from discovery.envoy.outbound import VIRTUAL_OUTBOUND, outbound_listener, virtual_outbound
from discovery.plan.model import Destination, EndpointSet, Plan, Role, RouteTable, VirtualHost
from mesh.wire import ResourceType, virtual_host_name
from mesh.xds import assemble_routes

__all__ = ["Resources", "assemble_routes", "render"]

Resources = dict[ResourceType, dict[str, Rendered]]
"""type -> name -> (version, bytes). The version is a hash of the bytes. The bytes are the whole resource as a JSON
object with its `@type`, as it stands in a DiscoveryResponse, except virtual hosts: they have no `@type`, since they
only ever stand inside a route configuration (`assemble_routes` puts it together). Secrets do not come from plans."""

_CAPACITY_BYTES = 64 * 1024 * 1024
_SHARED = Memo(_CAPACITY_BYTES)


@cache
def _memo(context: Context) -> Memo:
    # As many as there are meshes, access log files and IP versions: one or two, in all but tests.
    return Memo(_CAPACITY_BYTES)


def render(plan: Plan) -> Resources:
    """All resources of the plan's proxy. What Envoy refers to is always there: the catch-all clusters, an endpoint set
    (perhaps empty) for each cluster that asks for one, and in each outbound table a virtual host for unknown hosts."""
    proxy = plan.proxy
    ipv6 = any(":" in ip for ip in (proxy.ip, *proxy.other_ips))
    context = Context(proxy.identity.trust_domain, plan.access_log, ipv6)
    resources: Resources = {
        ResourceType.CLUSTERS: _clusters(plan, context),
        ResourceType.ENDPOINTS: _endpoints(plan.destinations, plan.endpoints),
        ResourceType.LISTENERS: _listeners(plan, context),
        ResourceType.ROUTES: {},
        ResourceType.VIRTUAL_HOSTS: {},
    }
    fall_through = routes.ALLOW_ANY if plan.allow_any else routes.BLOCK_ALL
    outbound = {listener.route_table for listener in plan.outbound}
    gateway = proxy.role is Role.GATEWAY
    for table in plan.route_tables:
        resources[ResourceType.ROUTES][table.name] = rendered(routes.route_configuration(table, gateway=gateway))
        hosts = _virtual_hosts(table, fall_through if table.name in outbound else None)
        resources[ResourceType.VIRTUAL_HOSTS].update(hosts)
    return resources


def _clusters(plan: Plan, context: Context) -> dict[str, Rendered]:
    memo = _memo(context)
    cluster = partial(clusters.cluster, trust_domain=context.trust_domain)
    # Later ones win: a plan may name the built-in destinations itself.
    return {each.name: memo.get(each, cluster) for each in (*clusters.BUILT_IN, *plan.destinations)}


def _endpoints(destinations: Iterable[Destination], sets: Iterable[EndpointSet]) -> dict[str, Rendered]:
    found = {each.name: _SHARED.get(each, load_assignment) for each in sets}
    for destination in destinations:
        if destination.name not in found and clusters.by_endpoints(destination):
            # Without an answer Envoy would warm the cluster for ever, and all listeners would wait for it.
            found[destination.name] = rendered(load_assignment(EndpointSet(destination.name, ())))
    return found


def _listeners(plan: Plan, context: Context) -> dict[str, Rendered]:
    memo = _memo(context)
    gateway = partial(gateway_listener, context=context)
    found = {each.name: memo.get(each, gateway) for each in plan.gateways}
    if plan.proxy.role is Role.GATEWAY:
        return found
    outbound = partial(outbound_listener, context=context)
    found.update((each.name, memo.get(each, outbound)) for each in plan.outbound)
    found[VIRTUAL_OUTBOUND] = rendered(virtual_outbound(context, allow_any=plan.allow_any))
    found[VIRTUAL_INBOUND] = rendered(virtual_inbound(plan.inbound, plan.inbound_default, context))
    return found


def _virtual_hosts(table: RouteTable, fall_through: VirtualHost | None) -> dict[str, Rendered]:
    hosts = table.virtual_hosts
    if fall_through is not None and not any("*" in each.domains for each in hosts):
        hosts = (*hosts, fall_through)
    return {virtual_host_name(table.name, each.name): _SHARED.get(each, routes.virtual_host) for each in hosts}
