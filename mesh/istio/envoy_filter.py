"""EnvoyFilter: changes to the Envoy configuration that the control plane makes, in Envoy's own words.

Source: https://istio.io/latest/docs/reference/config/networking/envoy-filter/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Int, Labels, Model, OptionalPort, Struct, Text, problem
from mesh.istio.schema import Cel, at_most_one
from mesh.istio.selectors import NetworkSelector, TargetRefs, check_one_way_to_select
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]


class ApplyTo(StrEnum):
    """The part of Envoy's configuration that is changed."""

    INVALID = "INVALID"
    LISTENER = "LISTENER"
    FILTER_CHAIN = "FILTER_CHAIN"
    NETWORK_FILTER = "NETWORK_FILTER"
    HTTP_FILTER = "HTTP_FILTER"
    ROUTE_CONFIGURATION = "ROUTE_CONFIGURATION"
    VIRTUAL_HOST = "VIRTUAL_HOST"
    HTTP_ROUTE = "HTTP_ROUTE"
    CLUSTER = "CLUSTER"
    EXTENSION_CONFIG = "EXTENSION_CONFIG"
    BOOTSTRAP = "BOOTSTRAP"
    LISTENER_FILTER = "LISTENER_FILTER"


class PatchContext(StrEnum):
    """Which of the proxies, and which direction of a sidecar."""

    ANY = "ANY"
    SIDECAR_INBOUND = "SIDECAR_INBOUND"
    SIDECAR_OUTBOUND = "SIDECAR_OUTBOUND"
    GATEWAY = "GATEWAY"
    WAYPOINT = "WAYPOINT"


class Operation(StrEnum):
    """What is done with the value."""

    INVALID = "INVALID"
    MERGE = "MERGE"
    ADD = "ADD"
    REMOVE = "REMOVE"
    INSERT_BEFORE = "INSERT_BEFORE"
    INSERT_AFTER = "INSERT_AFTER"
    INSERT_FIRST = "INSERT_FIRST"
    REPLACE = "REPLACE"


class FilterClass(StrEnum):
    """Where in the chain a filter is added."""

    UNSPECIFIED = "UNSPECIFIED"
    AUTHN = "AUTHN"
    AUTHZ = "AUTHZ"
    STATS = "STATS"


class RouteAction(StrEnum):
    """What a route does with a request."""

    ANY = "ANY"
    ROUTE = "ROUTE"
    REDIRECT = "REDIRECT"
    DIRECT_RESPONSE = "DIRECT_RESPONSE"


class ProxyMatch(Model):
    proxy_version: Text = ""
    """RE2 expression that the proxy's version matches."""
    metadata: Labels = EMPTY
    """Node metadata that the proxy has sent, all of it."""

    def rules(self) -> Rules:
        yield from check.check_regex(("proxyVersion",), self.proxy_version)


class SubFilterMatch(Model):
    name: Text = ""
    """Name of the filter within the filter, such as an HTTP filter within the connection manager."""


class FilterMatch(Model):
    name: Text = ""
    """Name of the network filter."""
    sub_filter: SubFilterMatch | None = None
    """A filter within it."""

    def rules(self) -> Rules:
        if self.sub_filter is not None and not self.name:
            yield problem("name", says="a filter within a filter without a name", hint="name the outer filter")


class FilterChainMatch(Model):
    name: Text = ""
    """Name of the filter chain."""
    sni: Text = ""
    """Server name that the chain is for."""
    transport_protocol: Text = ""
    """Transport protocol that the chain is for: `raw_buffer` or `tls`."""
    application_protocols: Text = ""
    """ALPN values that the chain is for, separated by commas."""
    filter: FilterMatch | None = None
    """A network filter of the chain."""
    destination_port: OptionalPort = 0
    """Destination port that the chain is for."""


class ListenerMatch(Model):
    port_number: OptionalPort = 0
    """Port of the service or gateway that the listener is for."""
    port_name: Text = ""
    """Name of that port; Istio does not look at it."""
    filter_chain: FilterChainMatch | None = None
    """A filter chain of the listener."""
    listener_filter: Text = ""
    """Name of a listener filter."""
    name: Text = ""
    """Name of the listener."""


class RouteMatch(Model):
    name: Text = ""
    """Name of the route."""
    action: RouteAction = RouteAction.ANY
    """What the route does."""


class VirtualHostMatch(Model):
    name: Text = ""
    """Name of the virtual host: `host:port`."""
    domain_name: Text = ""
    """A domain of the virtual host."""
    route: RouteMatch | None = None
    """A route of the virtual host."""


class RouteConfigurationMatch(Model):
    port_number: OptionalPort = 0
    """Port of the service or gateway that the routes are for."""
    port_name: Text = ""
    """Name of the gateway's port."""
    gateway: Text = ""
    """`namespace/name` of the Gateway that the routes are for."""
    vhost: VirtualHostMatch | None = None
    """A virtual host of the route configuration."""
    name: Text = ""
    """Name of the route configuration."""


class ClusterMatch(Model):
    port_number: OptionalPort = 0
    """Port of the service that the cluster is for."""
    service: Text = ""
    """Host name of that service."""
    subset: Text = ""
    """Subset that the cluster is for."""
    name: Text = ""
    """Name of the cluster."""


class WaypointRouteMatch(Model):
    name: Text = ""
    """Name of the route."""


class WaypointMatch(Model):
    filter: FilterMatch | None = None
    """A filter of the waypoint."""
    port_number: OptionalPort = 0
    """Port of the service."""
    route: WaypointRouteMatch | None = None
    """A route of the waypoint."""


class ConfigMatch(Model):
    cel = (
        at_most_one("listener", "routeConfiguration", "cluster", "waypoint"),
        Cel(
            "has(self.waypoint) == (has(self.context) && self.context == 'WAYPOINT')",
            "match.waypoint goes with context WAYPOINT, and only with it",
        ),
    )

    context: PatchContext = PatchContext.ANY
    """Sidecars inbound or outbound, gateways, or any."""
    proxy: ProxyMatch | None = None
    """Which proxies."""
    listener: ListenerMatch | None = None
    """Which listeners."""
    route_configuration: RouteConfigurationMatch | None = None
    """Which routes."""
    cluster: ClusterMatch | None = None
    """Which clusters."""
    waypoint: WaypointMatch | None = None
    """Which part of a waypoint proxy."""

    @property
    def objects(self) -> list[str]:
        """What is matched besides proxy and context, in the manifest's spelling."""
        named = {
            "listener": self.listener,
            "routeConfiguration": self.route_configuration,
            "cluster": self.cluster,
            "waypoint": self.waypoint,
        }
        return [name for name, match in named.items() if match is not None]

    def rules(self) -> Rules:
        if len(self.objects) > 1:
            yield problem(says=f"{' and '.join(self.objects)} exclude each other", hint="keep one of them")
        if (self.waypoint is not None) != (self.context is PatchContext.WAYPOINT):
            says = "waypoint goes with context WAYPOINT, and only with it"
            yield problem("waypoint", says=says, hint="set both or neither")


class Patch(Model):
    cel = (
        Cel("self.operation != 'INVALID'", "it does not say what to do: set operation"),
        Cel(
            "self.operation in ['REMOVE', 'INVALID'] || has(self.value)",
            "the operation has no value: write Envoy's own",
        ),
    )
    required = ("operation",)

    operation: Operation = Operation.INVALID
    """What is done with the value."""
    value: Struct | None = None
    """Envoy configuration, as JSON of its v3 API."""
    filter_class: FilterClass = FilterClass.UNSPECIFIED
    """Where in the chain a filter is added."""


class ConfigPatch(Model):
    cel = (Cel("self.applyTo != 'INVALID'", "it does not say what to change: set applyTo"),)
    required = ("applyTo", "patch")

    apply_to: ApplyTo = ApplyTo.INVALID
    """The part of Envoy's configuration that is changed."""
    match: ConfigMatch | None = None
    """Which objects of that part; all of them without it."""
    patch: Patch | None = None
    """The change."""

    def rules(self) -> Rules:
        if self.apply_to is ApplyTo.INVALID:
            yield problem("applyTo", says="it does not say what to change", hint="set it, such as HTTP_FILTER")
        if self.patch is None:
            yield problem("patch", says="there is no change", hint="set patch.operation and patch.value")
            return
        yield from _operation(self.apply_to, self.patch)
        yield from _fitting_match(self)


class EnvoyFilter(Model):
    """The spec. Envoy's configuration is not stable between versions, nor are these patches."""

    cel = (at_most_one("workloadSelector", "targetRefs"),)

    workload_selector: NetworkSelector | None = None
    """The workloads whose proxies are changed; all of the namespace (of the mesh, in the root namespace) without it."""
    target_refs: TargetRefs = ()
    """Gateways or services whose proxies are changed, instead of workloadSelector."""
    config_patches: tuple[ConfigPatch, ...] = ()
    """The changes, in order."""
    priority: Int = 0
    """Order among EnvoyFilters: smaller first; equal ones by age and name."""

    def rules(self) -> Rules:
        yield from check_one_way_to_select(None, None, self.target_refs)
        if self.workload_selector is not None and self.target_refs:
            says = "workloadSelector and targetRefs exclude each other"
            yield problem("targetRefs", says=says, hint="keep one of the two")
        if not self.config_patches:
            yield problem("configPatches", says="it changes nothing", hint="add a patch", warning=True)


_MATCHED_BY = {
    **dict.fromkeys((ApplyTo.LISTENER, ApplyTo.FILTER_CHAIN, ApplyTo.LISTENER_FILTER), "listener"),
    **dict.fromkeys((ApplyTo.NETWORK_FILTER, ApplyTo.HTTP_FILTER), "listener"),
    **dict.fromkeys((ApplyTo.ROUTE_CONFIGURATION, ApplyTo.VIRTUAL_HOST, ApplyTo.HTTP_ROUTE), "routeConfiguration"),
    ApplyTo.CLUSTER: "cluster",
}
_INSERTS = (Operation.INSERT_BEFORE, Operation.INSERT_AFTER, Operation.INSERT_FIRST)
_ORDERED = (ApplyTo.NETWORK_FILTER, ApplyTo.HTTP_FILTER, ApplyTo.LISTENER_FILTER, ApplyTo.HTTP_ROUTE)


def _operation(apply_to: ApplyTo, patch: Patch) -> Rules:
    where = ("patch", "operation")
    if patch.operation is Operation.INVALID:
        yield problem(*where, says="it does not say what to do", hint="set it, such as MERGE or INSERT_BEFORE")
    elif patch.operation is Operation.REMOVE:
        if patch.value:
            yield problem("patch", "value", says="REMOVE has no value", hint="remove it", warning=True)
    elif not patch.value:
        yield problem("patch", "value", says=f"{patch.operation} has no value", hint="write Envoy's configuration")
    if patch.operation in _INSERTS and apply_to not in (*_ORDERED, ApplyTo.INVALID):
        says = f"{apply_to} has no order to insert into"
        yield problem(*where, says=says, hint="use ADD or MERGE", warning=True)
    if patch.operation is Operation.REPLACE and apply_to not in (ApplyTo.NETWORK_FILTER, ApplyTo.HTTP_FILTER):
        says = f"REPLACE is for filters only, not for {apply_to}"
        yield problem(*where, says=says, hint="use MERGE", warning=True)
    if patch.filter_class is not FilterClass.UNSPECIFIED and patch.operation is not Operation.ADD:
        yield problem("patch", "filterClass", says="it has an effect with ADD only", hint="remove it", warning=True)


def _fitting_match(patch: ConfigPatch) -> Rules:
    wanted = _MATCHED_BY.get(patch.apply_to)
    matched = patch.match.objects if patch.match is not None else []
    for name in matched:
        if wanted and name not in (wanted, "waypoint"):
            yield problem("match", name, says=f"{patch.apply_to} is not matched by {name}", hint=f"match by {wanted}")
