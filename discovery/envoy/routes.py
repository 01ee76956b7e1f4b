"""Route tables as Envoy route configurations and virtual hosts."""

from __future__ import annotations

import re

from discovery.envoy.clusters import PASSTHROUGH
from discovery.envoy.matches import route_match
from discovery.envoy.values import Json, format_text, percent, seconds
from discovery.plan.model import (
    DirectResponse,
    Fault,
    HashBy,
    HeaderChanges,
    MatchKind,
    Redirect,
    RequestMatch,
    Retries,
    Route,
    RouteTable,
    Target,
    VirtualHost,
)
from mesh.wire import ResourceType
from mesh.workloads import PEER_HEADER
from mesh.xds import TYPE_URLS

FAULT_FILTER = "envoy.filters.http.fault"
FAULT_TYPE = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"

ALLOW_ANY = VirtualHost("allow_any", ("*",), (Route("allow_any", RequestMatch(), targets=(Target(PASSTHROUGH),)),))
"""What an outbound table ends with under ALLOW_ANY: unknown hosts go to where the app was going."""
BLOCK_ALL = VirtualHost("block_all", ("*",), (Route("block_all", RequestMatch(), response=DirectResponse(502)),))
"""The same under REGISTRY_ONLY: 502, as Istio answers."""

_MAX_BODY = 1024 * 1024
_INBOUND = "inbound|"
_REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
# By number: https://grpc.io/docs/guides/status-codes/
_GRPC_STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_NO_CHANGES = HeaderChanges()
_AUTHORITY = ("host", ":authority")


def route_configuration(table: RouteTable, *, gateway: bool) -> Json:
    """A `RouteConfiguration` without virtual hosts. Gateways are reached by many ports (node ports, load balancers), so
    there a host matches whatever its port; sidecars' tables spell the ports out. An app does not see who asks it
    (metrics.py)."""
    rendered: Json = {
        "@type": TYPE_URLS[ResourceType.ROUTES],
        "name": table.name,
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": _MAX_BODY,
    }
    if gateway:
        rendered["ignore_port_in_host_matching"] = True
    if table.name.startswith(_INBOUND):
        rendered["request_headers_to_remove"] = [PEER_HEADER]
    return rendered


def virtual_host(host: VirtualHost) -> Json:
    """A `VirtualHost`, without @type, since it only ever stands inside a route configuration."""
    rendered: Json = {
        "name": host.name,
        "domains": host.domains,
        "routes": [_route(route) for route in host.routes],
        "include_request_attempt_count": True,
    }
    if host.require_tls:
        rendered["require_tls"] = "ALL"
    return rendered


def _route(route: Route) -> Json:
    rendered: Json = {"name": route.name, "match": route_match(route.match)}
    if route.redirect is not None:
        rendered["redirect"] = _redirect(route.redirect)
    elif route.response is not None:
        rendered["direct_response"] = _direct(route.response)
    else:
        action = _action(route)
        if action is None:
            rendered["direct_response"] = {"status": 503}
        else:
            rendered["route"] = action
    if route.request_headers is not _NO_CHANGES:
        rendered.update(_changes(route.request_headers, "request"))
    if route.response_headers is not _NO_CHANGES:
        rendered.update(_changes(route.response_headers, "response"))
    if route.fault is not None:
        rendered["typed_per_filter_config"] = {FAULT_FILTER: _fault(route.fault)}
    return rendered


def _action(route: Route) -> Json | None:
    """A `RouteAction`; None when nothing has any weight."""
    targets = route.targets if len(route.targets) == 1 else tuple(t for t in route.targets if t.weight > 0)
    if not targets:
        return None
    only = targets[0]
    if len(targets) == 1 and only.request_headers == _NO_CHANGES and only.response_headers == _NO_CHANGES:
        action: Json = {"cluster": only.destination}
    else:
        action = {"weighted_clusters": {"clusters": [_weighted(t, alone=len(targets) == 1) for t in targets]}}
    action["timeout"] = "0s" if route.timeout is None else seconds(route.timeout)
    authority = route.rewrite.authority if route.rewrite else ""
    authority = authority or _new_authority(route.request_headers)
    if authority:
        action["host_rewrite_literal"] = authority
    if route.rewrite is not None and route.rewrite.path:
        action.update(_path_rewrite(route.match, route.rewrite.path))
    if route.retries is not None and route.retries.attempts > 0:
        action["retry_policy"] = _retries(route.retries)
    if route.hash_by is not None:
        action["hash_policy"] = [_hash(route.hash_by)]
    return action


def _weighted(target: Target, *, alone: bool) -> Json:
    rendered: Json = {"name": target.destination, "weight": 1 if alone else target.weight}
    rendered.update(_changes(target.request_headers, "request"))
    rendered.update(_changes(target.response_headers, "response"))
    authority = _new_authority(target.request_headers)
    if authority:
        rendered["host_rewrite_literal"] = authority
    return rendered


def _path_rewrite(match: RequestMatch, path: str) -> Json:
    """Envoy's prefix rewrite replaces a matched prefix, or all of the path for exact and regex matches. A prefix such
    as `/shop` replaced by `/` would leave `//cart`: Istio drops the double slash, and so does this."""
    prefix = match.path.value
    if path == "/" and match.path.kind is MatchKind.PREFIX and prefix.strip("/") and not prefix.endswith("/"):
        flags = "(?i)" if match.path.ignore_case else ""
        return {
            "regex_rewrite": {
                "pattern": {"regex": rf"{flags}^{re.escape(prefix)}(\/?)(.*)"},
                "substitution": r"/\2",
            }
        }
    return {"prefix_rewrite": path}


def _retries(retries: Retries) -> Json:
    """A `RetryPolicy`. As in Istio, a number among the conditions is a status code to retry on, and a retry goes to
    another host where there is one."""
    conditions = [condition.strip() for condition in retries.on.split(",") if condition.strip()]
    codes = [int(condition) for condition in conditions if condition.isdigit()]
    names = [condition for condition in conditions if not condition.isdigit()]
    if codes and "retriable-status-codes" not in names:
        names.append("retriable-status-codes")
    rendered: Json = {
        "retry_on": ",".join(names),
        "num_retries": retries.attempts,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": "5",
    }
    if codes:
        rendered["retriable_status_codes"] = codes
    if retries.per_try_timeout:
        rendered["per_try_timeout"] = seconds(retries.per_try_timeout)
    return rendered


def _hash(by: HashBy) -> Json:
    if by.header:
        return {"header": {"header_name": by.header}}
    if by.cookie:
        cookie: Json = {"name": by.cookie}
        if by.cookie_ttl is not None:
            cookie["ttl"] = seconds(by.cookie_ttl)
        if by.cookie_path:
            cookie["path"] = by.cookie_path
        return {"cookie": cookie}
    if by.query_parameter:
        return {"query_parameter": {"name": by.query_parameter}}
    return {"connection_properties": {"source_ip": True}}


def _redirect(redirect: Redirect) -> Json:
    rendered: Json = {"response_code": _REDIRECTS.get(redirect.status, "MOVED_PERMANENTLY")}
    if redirect.scheme:
        rendered["scheme_redirect"] = redirect.scheme
    if redirect.authority:
        rendered["host_redirect"] = redirect.authority
    if redirect.path:
        rendered["path_redirect"] = redirect.path
    if redirect.port:
        rendered["port_redirect"] = redirect.port
    return rendered


def _direct(response: DirectResponse) -> Json:
    rendered: Json = {"status": response.status}
    if response.body:
        rendered["body"] = {"inline_string": response.body}
    return rendered


def _fault(fault: Fault) -> Json:
    rendered: Json = {"@type": FAULT_TYPE}
    if fault.delay:
        rendered["delay"] = {"fixed_delay": seconds(fault.delay), "percentage": percent(fault.delay_percent)}
    if fault.abort_grpc_status:
        status = _GRPC_STATUSES.index(fault.abort_grpc_status)
        rendered["abort"] = {"grpc_status": status, "percentage": percent(fault.abort_percent)}
    elif fault.abort_status is not None:
        rendered["abort"] = {"http_status": fault.abort_status, "percentage": percent(fault.abort_percent)}
    return rendered


def _changes(changes: HeaderChanges, side: str) -> Json:
    """`<side>_headers_to_add` and `_to_remove`. Envoy lets nobody set or remove `host` and pseudo-headers there; a new
    authority is a host rewrite instead (`_new_authority`)."""
    rendered: Json = {}
    added = [
        {"header": {"key": key, "value": format_text(value)}, "append_action": action}
        for action, pairs in (("OVERWRITE_IF_EXISTS_OR_ADD", changes.set), ("APPEND_IF_EXISTS_OR_ADD", changes.add))
        for key, value in pairs
        if _changeable(key)
    ]
    removed = [key for key in changes.remove if _changeable(key)]
    if added:
        rendered[f"{side}_headers_to_add"] = added
    if removed:
        rendered[f"{side}_headers_to_remove"] = removed
    return rendered


def _changeable(header: str) -> bool:
    return not header.startswith(":") and header.lower() != "host"


def _new_authority(changes: HeaderChanges) -> str:
    return next((value for key, value in changes.set if key.lower() in _AUTHORITY), "")
