"""HTTP rules of a VirtualService as routes: match, action, timeout, retries, headers, fault.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/ (HTTPRoute and its parts). No timeout
by default (HTTPRoute.timeout: disabled); retries by default: 2, on what is safe to repeat, without 503 since
https://istio.io/latest/news/releases/1.24.x/announcing-1.24/change-notes/
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace

from discovery.plan.model import (
    DirectResponse,
    Fault,
    HashBy,
    HeaderChanges,
    MatchKind,
    NamedMatch,
    Redirect,
    RequestMatch,
    Retries,
    Rewrite,
    Route,
    Target,
    TextMatch,
)
from discovery.plan.origins import Problem, origin_of, problem_with
from discovery.plan.targets import Resolved
from discovery.plan.virtual_services import Bound
from mesh.istio.destination import HeaderOperations, Headers, HTTPRouteDestination, StringMatch
from mesh.istio.http_actions import (
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    RedirectPortSelection,
)
from mesh.istio.virtual_service import HTTPMatchRequest, HTTPRoute

DEFAULT_RETRIES = Retries(2, "connect-failure,refused-stream,unavailable,cancelled")
INBOUND_RETRIES = Retries(2, "reset-before-request")
ANY_REQUEST = RequestMatch()


@dataclass(frozen=True, slots=True)
class Side:
    """Where routes are used: the names that rules may give this place in `gateways`, and the client itself."""

    gateway: str
    namespace: str
    labels: tuple[tuple[str, str], ...]

    def takes(self, match: HTTPMatchRequest) -> bool:
        """Whether a match can hold here: by gateway where it names any, otherwise by who the client is."""
        if match.gateways:
            return self.gateway in match.gateways
        if match.source_namespace and match.source_namespace != self.namespace:
            return False
        return match.source_labels.items() <= dict(self.labels).items()


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """Routes of one VirtualService for one place; compared by identity, since they are long."""

    routes: tuple[Route, ...]
    problems: tuple[Problem, ...]


Chosen = tuple[tuple[int, ...], ...]
"""For each HTTP rule the indexes of its matches that can hold; (-1,) for a rule without matches."""


def applicable(one: Bound, side: Side, port: int) -> Chosen:
    """Which rules and matches count at `side` for requests that come in on `port`."""
    return tuple(
        tuple(
            index
            for index, match in enumerate(rule.match)
            if match.port in (0, port) and side.takes(_full(match, one.namespace))
        )
        if rule.match
        else (-1,)
        for rule in one.spec.http
    )


def _full(match: HTTPMatchRequest, namespace: str) -> HTTPMatchRequest:
    """The match with gateways by full name, as `Side` has them."""
    if not match.gateways:
        return match
    names = tuple(name if name == "mesh" or "/" in name else f"{namespace}/{name}" for name in match.gateways)
    return match.model_copy(update={"gateways": names})


def routes_of(one: Bound, port: int, chosen: Chosen, resolved: tuple[tuple[Resolved, ...], ...]) -> Routed:
    """The routes, in order, up to the first that takes every request; `resolved` by rule and destination."""
    routes: list[Route] = []
    problems: list[Problem] = []
    for index, (rule, matches, targets) in enumerate(zip(one.spec.http, chosen, resolved, strict=True)):
        if not matches:
            continue
        action, found = _action(one, index, rule, port, targets)
        problems.extend(found)
        for number in matches:
            match = rule.match[number] if number >= 0 else None
            name = f"{rule.name}.{match.name}" if match is not None and match.name else rule.name
            route = replace(action, name=name, match=request_match(match))
            routes.append(route)
            if route.match == ANY_REQUEST:
                return Routed(tuple(routes), tuple(problems))
    return Routed(tuple(routes), tuple(problems))


def default_route(name: str, target: Resolved) -> Route:
    """All requests to one destination, for a host that no VirtualService routes."""
    return Route(name, ANY_REQUEST, (Target(target.name),), retries=DEFAULT_RETRIES, hash_by=target.hash_by)


# ---- match


def request_match(match: HTTPMatchRequest | None) -> RequestMatch:
    if match is None:
        return ANY_REQUEST
    headers = [NamedMatch(name.lower(), _text(value)) for name, value in sorted(match.headers.items())]
    for name, value in sorted(match.without_headers.items()):
        headers.append(NamedMatch(name.lower(), replace(_text(value), invert=True)))
    for name, pseudo in ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme)):
        if pseudo is not None:
            headers.append(NamedMatch(name, _text(pseudo)))
    return RequestMatch(
        path=_path(match.uri, match.ignore_uri_case),
        headers=tuple(headers),
        query=tuple(NamedMatch(name, _text(value)) for name, value in sorted(match.query_params.items())),
    )


def _path(uri: StringMatch | None, ignore_case: bool) -> TextMatch:
    if uri is None or uri.is_presence or (uri.prefix == "/" and uri.exact is None):
        return ANY_REQUEST.path
    return replace(_text(uri), ignore_case=ignore_case and uri.regex is None)


def _text(match: StringMatch) -> TextMatch:
    if match.exact is not None:
        return TextMatch(MatchKind.EXACT, match.exact)
    if match.prefix is not None:
        return TextMatch(MatchKind.PREFIX, match.prefix)
    if match.regex is not None:
        return TextMatch(MatchKind.REGEX, match.regex)
    return TextMatch(MatchKind.PRESENT)


# ---- action


def _action(
    one: Bound, index: int, rule: HTTPRoute, port: int, resolved: tuple[Resolved, ...]
) -> tuple[Route, list[Problem]]:
    """The rule as a route that matches everything."""
    at = f"spec.http[{index}]"
    problems: list[Problem] = []
    request, authority = _changes(rule.headers.request if rule.headers else None)
    response, _ = _changes(rule.headers.response if rule.headers else None)
    base = Route(
        name=rule.name,
        match=ANY_REQUEST,
        request_headers=request,
        response_headers=response,
        fault=_fault(rule.fault),
        origin=origin_of(one.thing, at),
    )
    if rule.redirect is not None:
        return replace(base, redirect=_redirect(rule.redirect, port)), problems
    if rule.direct_response is not None:
        return replace(base, response=_response(one, at, rule.direct_response, problems)), problems
    targets, hash_by = _targets(one, at, rule, resolved, problems)
    if not targets:
        says = "nothing can be done with such requests here: they are answered with 503"
        problems.append(problem_with(one.thing, at, says, "give the rule a route with a weight, or a directResponse"))
        return replace(base, response=DirectResponse(503)), problems
    if len(targets) == 1:
        # What is said for the only destination is said for the route: fewer parts, and Istio's result.
        only = targets[0]
        request, own_authority = _joined(request, rule.route, "request")
        response, _ = _joined(response, rule.route, "response")
        authority = authority or own_authority
        targets = (Target(only.destination),)
        base = replace(base, request_headers=request, response_headers=response)
    return (
        replace(
            base,
            targets=targets,
            rewrite=_rewrite(rule.rewrite, authority),
            timeout=rule.timeout or None,
            retries=_retries(rule.retries),
            hash_by=hash_by,
        ),
        problems,
    )


def _targets(
    one: Bound, at: str, rule: HTTPRoute, resolved: tuple[Resolved, ...], problems: list[Problem]
) -> tuple[tuple[Target, ...], HashBy | None]:
    targets: list[Target] = []
    hash_by: HashBy | None = None
    for index, (route, found) in enumerate(zip(rule.route, resolved, strict=True)):
        if found.missing:
            field = f"{at}.route[{index}].destination.{found.field}"
            says = f"{found.missing}: what is routed there is answered with 503"
            problems.append(problem_with(one.thing, field, says, found.hint))
        if route.weight <= 0 and len(rule.route) > 1:
            continue
        request, authority = _changes(route.headers.request if route.headers else None)
        response, _ = _changes(route.headers.response if route.headers else None)
        if authority and len(rule.route) > 1:
            field = f"{at}.route[{index}].headers.request"
            says = "the authority cannot be changed for one of several destinations yet"
            problems.append(problem_with(one.thing, field, says, "use rewrite.authority for the whole rule"))
        hash_by = hash_by or found.hash_by
        targets.append(Target(found.name, max(route.weight, 1), request, response))
    return tuple(targets), hash_by


def _joined(changes: HeaderChanges, routes: tuple[HTTPRouteDestination, ...], side: str) -> tuple[HeaderChanges, str]:
    """The rule's header changes and those of its only destination with a weight, the destination's last."""
    weighted = [route for route in routes if route.weight > 0] or list(routes)
    headers: Headers | None = weighted[0].headers
    own, authority = _changes(getattr(headers, side) if headers else None)
    joined = HeaderChanges(
        set=tuple(sorted({**dict(changes.set), **dict(own.set)}.items())),
        add=(*changes.add, *own.add),
        remove=tuple(dict.fromkeys((*changes.remove, *own.remove))),
    )
    return (changes if joined == changes else joined), authority


def _changes(operations: HeaderOperations | None) -> tuple[HeaderChanges, str]:
    """The changes, and the new authority where `host` or `:authority` is among them."""
    if operations is None:
        return HeaderChanges(), ""
    authority = _authority(operations.set) or _authority(operations.add)
    return (
        HeaderChanges(
            set=_ordinary(operations.set),
            add=_ordinary(operations.add),
            remove=tuple(name for name in operations.remove if not _is_internal(name)),
        ),
        authority,
    )


def _authority(changes: Mapping[str, str]) -> str:
    return next((value for name, value in changes.items() if name.lower() in (":authority", "host")), "")


def _ordinary(changes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in changes.items() if not _is_internal(name)))


def _is_internal(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"


def _rewrite(rewrite: HTTPRewrite | None, authority: str) -> Rewrite | None:
    path = rewrite.uri if rewrite else ""
    authority = (rewrite.authority if rewrite else "") or authority
    return Rewrite(path, authority) if path or authority else None


def _retries(retries: HTTPRetry | None) -> Retries | None:
    if retries is None:
        return DEFAULT_RETRIES
    if retries.attempts <= 0:
        return None
    return Retries(retries.attempts, retries.retry_on or DEFAULT_RETRIES.on, retries.per_try_timeout or None)


def _redirect(redirect: HTTPRedirect, request_port: int) -> Redirect:
    port = redirect.port or 0
    if redirect.derive_port is RedirectPortSelection.FROM_REQUEST_PORT:
        port = request_port
    if (port, redirect.scheme or "http") in ((80, "http"), (443, "https")):
        port = 0  # the scheme says it
    return Redirect(redirect.scheme, redirect.authority, redirect.uri, port, redirect.redirect_code or 301)


def _response(one: Bound, at: str, response: HTTPDirectResponse, problems: list[Problem]) -> DirectResponse:
    body = response.body
    if body is None or body.bytes is None:
        return DirectResponse(response.status, (body.string or "") if body else "")
    try:
        text = base64.b64decode(body.bytes.replace("-", "+").replace("_", "/") + "==").decode()
    except ValueError:
        says = "the body is not base64 of UTF-8 text, and is left out"
        problems.append(problem_with(one.thing, f"{at}.directResponse.body.bytes", says, "use body.string"))
        text = ""
    return DirectResponse(response.status, text)


def _fault(fault: HTTPFaultInjection | None) -> Fault | None:
    if fault is None:
        return None
    delay, abort = fault.delay, fault.abort
    share = (delay.percentage.value if delay.percentage else float(delay.percent)) if delay else 0.0
    return Fault(
        delay=delay.fixed_delay if delay else None,
        delay_percent=share,
        abort_status=abort.http_status if abort else None,
        abort_grpc_status=abort.grpc_status if abort and abort.grpc_status else "",
        abort_percent=abort.percentage.value if abort and abort.percentage else 0.0,
    )
