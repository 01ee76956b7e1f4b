"""VirtualService: how requests to some hosts are routed.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Flag, Labels, Map, Model, Text, TimeSpan, UInt, planned, problem
from mesh.istio.destination import (
    Destination,
    HeaderOperations,
    Headers,
    HTTPRouteDestination,
    Percent,
    RouteDestination,
    StringMatch,
    check_weights,
)
from mesh.istio.http_actions import (
    CorsPolicy,
    Delegate,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMirrorPolicy,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
)
from mesh.istio.schema import Cel, Schema, at_least_one, at_most_one, exactly_one, not_together
from mesh.istio.texts import ExportTo, GatewayName, Host, LabelSet, Namespace
from mesh.problems import FieldProblem

MESH_GATEWAY = "mesh"
Rules = Iterator[FieldProblem]
_WEIGHTS = Cel(
    "!has(self.route) || self.route.size() < 2 || self.route.exists(each, has(each.weight) && each.weight > 0)",
    "the weights add to 0, so nothing would be sent anywhere: give one of them a weight",
)


class HTTPMatchRequest(Model):
    """Every condition that is set must hold."""

    cel = tuple(
        Cel(
            f"!has(self.{name}) || has(self.{name}.exact) || has(self.{name}.prefix) || has(self.{name}.regex)",
            f"{name} says no way to match: set one of exact, prefix, regex",
        )
        for name in ("uri", "scheme", "method", "authority")
    )

    name: Text = ""
    """Name of the condition, for logs."""
    uri: StringMatch | None = None
    """Path of the request."""
    scheme: StringMatch | None = None
    """Scheme of the request."""
    method: StringMatch | None = None
    """Method of the request."""
    authority: StringMatch | None = None
    """Host header of the request."""
    headers: Map[StringMatch] = EMPTY
    """Headers by name; an empty match asks only that the header is there."""
    port: Annotated[UInt, Schema(maximum=65535)] = 0
    """Port of the service that the request was sent to."""
    source_labels: LabelSet = EMPTY
    """Labels of the client's pod."""
    gateways: tuple[GatewayName, ...] = ()
    """Gateways that the request came through; overrides those of the VirtualService."""
    query_params: Map[StringMatch] = EMPTY
    """Query parameters by name; an empty match asks only that the parameter is there."""
    ignore_uri_case: Flag = False
    """Compare the path without regard to case."""
    without_headers: Map[StringMatch] = EMPTY
    """Headers that the request must not have."""
    source_namespace: Namespace = ""
    """Namespace of the client."""
    stat_prefix: Text = planned("")
    """Prefix of Envoy's statistics for requests that match."""

    def rules(self) -> Rules:
        for name in ("uri", "scheme", "method", "authority"):
            match = getattr(self, name)
            if match is not None and match.is_presence:
                yield problem(name, says="it says no way to match", hint="set one of exact, prefix, regex")
        for field, names in (("headers", self.headers), ("withoutHeaders", self.without_headers)):
            for name in names:
                if not name.startswith(":"):
                    yield from check.check_header_name((field, name), name)
        yield from check.check_port(("port",), self.port, optional=True)
        yield from check.check_labels(("sourceLabels",), self.source_labels)
        yield from check.check_gateways(self.gateways)
        if self.source_namespace and not check.is_dns_label(self.source_namespace):
            yield problem(
                "sourceNamespace", says=f"{self.source_namespace!r} is not a namespace", hint="write one name"
            )


class HTTPRoute(Model):
    """One rule: when any of `match` holds (or there is none), do one of route, redirect, directResponse, delegate."""

    cel = (
        exactly_one("route", "redirect", "directResponse", "delegate"),
        not_together("redirect", "fault", "rewrite"),
        not_together("directResponse", "rewrite"),
        at_most_one("mirror", "mirrors"),
        _WEIGHTS,
    )

    name: Text = ""
    """Name of the rule, for logs."""
    match: tuple[HTTPMatchRequest, ...] = ()
    """Conditions of which one must hold; without any, the rule holds for every request."""
    route: Annotated[tuple[HTTPRouteDestination, ...], Schema(minItems=1, maxItems=128)] = ()
    """Where requests go, by weight."""
    redirect: HTTPRedirect | None = None
    """Answer with a redirect."""
    direct_response: HTTPDirectResponse | None = None
    """Answer with a fixed response."""
    delegate: Delegate | None = planned()
    """Continue with the rules of another VirtualService."""
    rewrite: HTTPRewrite | None = None
    """Change path or host before the request is sent on."""
    timeout: TimeSpan | None = None
    """Time until the whole answer must be there; none by default."""
    retries: HTTPRetry | None = None
    """When and how often a failed request is sent again."""
    fault: HTTPFaultInjection | None = None
    """Delays and errors made on purpose."""
    mirror: Destination | None = planned()
    """A destination that gets a copy; use mirrors."""
    mirrors: tuple[HTTPMirrorPolicy, ...] = planned(())
    """Destinations that get a copy, whose answers are dropped."""
    mirror_percent: Annotated[UInt | None, Schema(maximum=100)] = planned()
    """Share of requests that are copied; use mirrorPercentage."""
    mirror_percent_old: Annotated[UInt | None, Schema(maximum=100), Field(alias="mirror_percent")] = planned()
    """An old spelling of mirrorPercent."""
    mirror_percentage: Percent | None = planned()
    """Share of requests that are copied; all of them by default."""
    cors_policy: CorsPolicy | None = planned()
    """Cross-origin resource sharing."""
    headers: Headers | None = None
    """Changes of headers for all destinations of the rule."""

    def rules(self) -> Rules:
        yield from _one_action(self)
        yield from check_weights(self.route)
        if self.timeout == 0:
            yield problem("timeout", says="0s is no time", hint="remove the field: without it, nothing times out")
        else:
            yield from check.check_duration(("timeout",), self.timeout)
        yield from _one_authority(self)
        if self.mirror is not None and self.mirrors:
            yield problem("mirrors", says="mirror and mirrors exclude each other", hint="keep mirrors")
        yield from check.check_percentage(("mirrorPercent",), self.mirror_percent)
        yield from check.check_percentage(("mirror_percent",), self.mirror_percent_old)


class L4MatchAttributes(Model):
    destination_subnets: tuple[Text, ...] = planned(())
    """Address ranges that the connection was made to."""
    port: Annotated[UInt, Schema(maximum=65535)] = 0
    """Port that the connection was made to."""
    source_subnet: Text = planned("")
    """Address range that the connection comes from."""
    source_labels: LabelSet = planned(EMPTY)
    """Labels of the client's pod."""
    gateways: tuple[GatewayName, ...] = planned(())
    """Gateways that the connection came through; overrides those of the VirtualService."""
    source_namespace: Text = planned("")
    """Namespace of the client."""

    def rules(self) -> Rules:
        yield from _l4_rules(self.destination_subnets, self.port, self.source_labels, self.gateways)


class TCPRoute(Model):
    cel = (_WEIGHTS,)
    required = ("route",)

    match: tuple[L4MatchAttributes, ...] = ()
    """Conditions of which one must hold; without any, the rule holds for every connection."""
    route: Annotated[tuple[RouteDestination, ...], Schema(minItems=1, maxItems=128)] = ()
    """Where connections go, by weight."""

    def rules(self) -> Rules:
        if not self.route:
            yield problem("route", says="the TCP rule leads nowhere", hint="add a destination")
        yield from check_weights(self.route)


class TLSMatchAttributes(Model):
    sni_hosts: Annotated[tuple[Host, ...], Schema(minItems=1)]
    """Server names (SNI) of which the client must ask for one; each within the hosts of the VirtualService."""
    destination_subnets: tuple[Text, ...] = ()
    """Address ranges that the connection was made to."""
    port: Annotated[UInt, Schema(maximum=65535)] = 0
    """Port that the connection was made to."""
    source_labels: LabelSet = EMPTY
    """Labels of the client's pod."""
    gateways: tuple[GatewayName, ...] = ()
    """Gateways that the connection came through; overrides those of the VirtualService."""
    source_namespace: Namespace = ""
    """Namespace of the client."""

    def rules(self) -> Rules:
        if not self.sni_hosts:
            yield problem("sniHosts", says="there is no host to match", hint="add at least one")
        for index, host in enumerate(self.sni_hosts):
            yield from check.check_host(("sniHosts", index), host, wildcard=True)
        yield from _l4_rules(self.destination_subnets, self.port, self.source_labels, self.gateways)


class TLSRoute(Model):
    cel = (_WEIGHTS,)
    required = ("route",)

    match: Annotated[tuple[TLSMatchAttributes, ...], Schema(minItems=1)]
    """Conditions of which one must hold."""
    route: Annotated[tuple[RouteDestination, ...], Schema(minItems=1, maxItems=128)] = ()
    """Where connections go, by weight."""

    def rules(self) -> Rules:
        if not self.match:
            yield problem("match", says="the TLS rule matches nothing", hint="add a match with sniHosts")
        if not self.route:
            yield problem("route", says="the TLS rule leads nowhere", hint="add a destination")
        yield from check_weights(self.route)


class VirtualService(Model):
    """The spec. No gateways means `mesh`: every sidecar. No hosts means that others delegate to it."""

    cel = (
        at_least_one("http", "tls", "tcp"),
        Cel(
            "has(self.hosts) || (has(self.http) && !has(self.gateways) && !has(self.tcp) && !has(self.tls))",
            "there is no host to route for: name at least one in hosts",
        ),
    )

    hosts: Annotated[tuple[Host, ...], Schema(minItems=1)] = ()
    """The hosts that the rules are for: services, or any names at a gateway."""
    gateways: tuple[GatewayName, ...] = ()
    """Gateways that the rules are for; `mesh` is every sidecar and the default."""
    http: Annotated[tuple[HTTPRoute, ...], Schema(minItems=1, maxItems=4096)] = ()
    """Rules for HTTP, the first that holds."""
    tls: Annotated[tuple[TLSRoute, ...], Schema(maxItems=4096)] = planned(())
    """Rules for TLS that is passed through, by server name."""
    tcp: Annotated[tuple[TCPRoute, ...], Schema(minItems=1, maxItems=4096)] = ()
    """Rules for TCP, the first that holds."""
    export_to: ExportTo = ()
    """Namespaces that the rules are for; everybody when empty."""

    @property
    def applies_to_mesh(self) -> bool:
        """Whether sidecars take it (rather than gateways only)."""
        return not self.gateways or MESH_GATEWAY in self.gateways

    def rules(self) -> Rules:
        if not self.hosts:
            hint = "name at least one, such as reviews"
            if self.http and not (self.gateways or self.tcp or self.tls or "hosts" in self.model_fields_set):
                says = "without hosts only VirtualServices that delegate to it use it, and Heddle does not delegate yet"
                yield problem("hosts", says=says, hint=hint, warning=True)
            else:
                yield problem("hosts", says="there is no host to route for", hint=hint)
        for index, host in enumerate(self.hosts):
            yield from _virtual_host(index, host, self)
        if not self.http and not self.tls and not self.tcp:
            yield problem(says="there is no rule", hint="add http, tcp or tls")
        yield from check.check_gateways(self.gateways)
        yield from check.check_export_to(self.export_to)
        for at, route in enumerate(self.tls):
            for nth, match in enumerate(route.match):
                for index, name in enumerate(match.sni_hosts):
                    if self.hosts and not any(check.host_covers(host, name) for host in self.hosts):
                        says = f"{name!r} is not among the hosts"
                        yield problem(
                            "tls", at, "match", nth, "sniHosts", index, says=says, hint="add it to spec.hosts"
                        )


def _one_action(route: HTTPRoute) -> Rules:
    actions = {
        "route": bool(route.route),
        "redirect": route.redirect is not None,
        "directResponse": route.direct_response is not None,
        "delegate": route.delegate is not None,
    }
    chosen = [name for name, used in actions.items() if used]
    if not chosen:
        yield problem(says="the rule says nothing to do", hint="set one of route, redirect, directResponse")
    elif len(chosen) > 1:
        yield problem(says=f"{' and '.join(chosen)} exclude each other", hint="keep one of them")
    if route.redirect is not None:
        for name in ("fault", "rewrite"):
            if getattr(route, name) is not None:
                yield problem(
                    name, says=f"a redirect has no {name}", hint=f"remove {name}, or route instead of redirecting"
                )
    if route.direct_response is not None and route.rewrite is not None:
        yield problem("rewrite", says="a direct response has no rewrite", hint="remove rewrite")


def _one_authority(route: HTTPRoute) -> Rules:
    operations = route.headers.request if route.headers and route.headers.request else HeaderOperations()
    changes = [name for name in (*operations.set, *operations.add) if name.lower() in (":authority", "host")]
    if route.rewrite is not None and route.rewrite.authority:
        changes.append("rewrite.authority")
    if len(changes) > 1:
        yield problem("headers", says=f"the authority is changed twice: {', '.join(changes)}", hint="keep one of them")


def _l4_rules(subnets: tuple[str, ...], port: int, labels: Labels, gateways: tuple[str, ...]) -> Rules:
    yield from check.check_subnets(("destinationSubnets",), subnets)
    yield from check.check_port(("port",), port, optional=True)
    yield from check.check_labels(("sourceLabels",), labels)
    yield from check.check_gateways(gateways)


def _virtual_host(index: int, host: str, spec: VirtualService) -> Rules:
    if found := [*check.check_host(("hosts", index), host, wildcard=True, address=True)]:
        yield from found
    elif host == "*" and spec.applies_to_mesh:
        yield problem(
            "hosts", index, says="* would be every host of every sidecar", hint="name hosts, or bind it to a gateway"
        )
    else:
        for other in spec.hosts[:index]:
            if check.host_covers(other, host) or check.host_covers(host, other):
                yield problem("hosts", index, says=f"{host!r} and {other!r} overlap", hint="keep one of the two")
