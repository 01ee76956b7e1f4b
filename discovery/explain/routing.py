"""What a route table makes of a request: virtual host, route, fault, and a branch for each share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from discovery.explain.forward import Scene, forwarded
from discovery.explain.matching import unjudged, virtual_host, why_not, without_port
from discovery.explain.model import Branch, Outcome, Part, Result, Step
from discovery.explain.objects import destination_field, left_out, settings_origin
from discovery.plan.destinations import PASSTHROUGH
from discovery.plan.model import (
    Fault,
    GatewayServer,
    HeaderChanges,
    Redirect,
    RequestMatch,
    Route,
    RouteTable,
    VirtualHost,
)
from discovery.plan.origins import Origin
from mesh.objects import Key

ALLOW_ANY, BLOCK_ALL = "allow_any", "block_all"


@dataclass(frozen=True, slots=True)
class Routed:
    steps: tuple[Step, ...]
    branches: tuple[Branch, ...]
    passed_over: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


def routed(scene: Scene, table: RouteTable, *, gateway: GatewayServer | None, scheme: str) -> Routed:
    """`gateway`: the server of a gateway that the request came to; None for a sidecar.

    Unknown hosts are a sidecar's to pass on or to refuse; a gateway answers them with 404.
    """
    authority = scene.request.named
    host, domain = virtual_host(table, without_port(authority) if gateway is not None else authority)
    if host is None:
        return _unknown(scene, table, gateway=gateway is not None)
    says = f"{authority} is of {domain}" if domain != authority else f"{authority} is one of its names"
    steps = (Step(Part.HOST, host.name, says, host.origins),)
    if host.require_tls and scheme != "https":
        outcome = Outcome(Result.ANSWERED, 301, "plain HTTP is sent to https", origins=_redirecting(scene, gateway))
        return Routed(steps, (Branch(1.0, outcome),))
    skipped: list[Step] = []
    notes: list[str] = []
    for route in host.routes:
        missing = why_not(route.match, scene.request, scheme)
        if not missing:
            passed = (*_of_others(scene, host, route), *skipped)
            branches = _taken(scene, route, http_port=scene.request.port)
            return Routed((*steps, _route_step(route)), branches, passed, tuple(notes))
        notes += [
            f"the expression {each!r} cannot be judged here, and is taken as not matching"
            for each in unjudged(route.match)
        ]
        skipped.append(Step(Part.ROUTE, route.name, missing, _origins(route)))
    reason = "no route takes this request: it is answered with 404"
    hint = "add a rule without match as the last one, or correct the match that was meant"
    outcome = Outcome(Result.REFUSED, 404, reason, hint, host.origins[-1:])
    return Routed(steps, (Branch(1.0, outcome),), (*_of_others(scene, host, None), *skipped), tuple(notes))


def _redirecting(scene: Scene, server: GatewayServer | None) -> tuple[Origin, ...]:
    """Those of the server's Gateways that ask for it."""
    found = []
    for origin in server.origins if server is not None else ():
        gateway = scene.snapshot.of(origin.kind).get(Key(origin.namespace, origin.name))
        index = origin.field.removeprefix("spec.servers[").removesuffix("]")
        if gateway is not None and index.isdigit():
            tls = gateway.spec.servers[int(index)].tls
            if tls is not None and tls.https_redirect:
                found.append(replace(origin, field=f"{origin.field}.tls.httpsRedirect"))
    return tuple(found)


def _unknown(scene: Scene, table: RouteTable, *, gateway: bool) -> Routed:
    authority = scene.request.named
    if gateway:
        reason = f"no VirtualService of the gateway has host {authority}: it is answered with 404"
        hosts = sorted({domain for host in table.virtual_hosts for domain in host.domains if ":" not in domain})
        hint = f"hosts that it knows: {', '.join(hosts[:5]) or '(none)'}"
        return Routed((), (Branch(1.0, Outcome(Result.REFUSED, 404, reason, hint)),))
    assert scene.plan is not None
    mode = settings_origin(scene.snapshot, "outboundTrafficPolicy.mode")
    if not scene.plan.allow_any:
        reason = f"the mesh has no host {authority} on port {table.name}, and unknown ones are refused (REGISTRY_ONLY)"
        hint = "correct the host, or make it known: by a service, or by outboundTrafficPolicy.mode ALLOW_ANY"
        step = Step(Part.HOST, BLOCK_ALL, f"{authority} is no host of the mesh on port {table.name}", (mode,))
        return Routed((step,), (Branch(1.0, Outcome(Result.REFUSED, 502, reason, hint, (mode,))),))
    says = f"{authority} is no host of the mesh on port {table.name}: passed on to the address dialled (ALLOW_ANY)"
    return Routed(
        (Step(Part.HOST, ALLOW_ANY, says, (mode,)),),
        forwarded(scene, PASSTHROUGH.name, http=True, origin=None, within=""),
    )


def _of_others(scene: Scene, host: VirtualHost, decided: Route | None) -> tuple[Step, ...]:
    """Rules before the one that decides that are for other clients, gateways or ports."""
    steps = []
    for origin in left_out(scene.snapshot, host):
        if decided is not None and decided.origin is not None and not _before(origin, decided.origin):
            continue
        says = "it is for others: by sourceLabels, sourceNamespace, gateways or port of its matches"
        steps.append(Step(Part.ROUTE, "", says, (origin,)))
    return tuple(steps)


def _before(one: Origin, other: Origin) -> bool:
    same = (one.namespace, one.name) == (other.namespace, other.name)
    return same and _index(one.field) < _index(other.field)


def _index(field: str) -> int:
    digits = field.removeprefix("spec.http[").partition("]")[0]
    return int(digits) if digits.isdigit() else 0


# ---- the route that takes it


def _route_step(route: Route) -> Step:
    return Step(Part.ROUTE, route.name, described(route), _origins(route))


def _origins(route: Route) -> tuple[Origin, ...]:
    return (route.origin,) if route.origin else ()


def described(route: Route) -> str:
    """What the route does, in a line."""
    says: list[str] = []
    if route.redirect is not None:
        says.append(f"redirects to {_location(route.redirect)}")
    elif route.response is not None:
        says.append(f"is answered with {route.response.status}")
    else:
        total = sum(target.weight for target in route.targets)
        says.append(
            "to "
            + ", ".join(
                f"{t.destination} ({t.weight / total:.4g})" if len(route.targets) > 1 else t.destination
                for t in route.targets
            )
        )
    if route.rewrite is not None and route.rewrite.path:
        says.append(f"path becomes {route.rewrite.path}")
    if route.rewrite is not None and route.rewrite.authority:
        says.append(f"host becomes {route.rewrite.authority}")
    if route.timeout is not None:
        says.append(f"timeout {route.timeout:g} s")
    if route.retries is not None and route.targets:
        limit = route.retries.per_try_timeout
        each = f", each within {limit:g} s" if limit else ""
        says.append(f"{route.retries.attempts} retries on {route.retries.on}{each}")
    if HeaderChanges() not in (route.request_headers, route.response_headers):
        says.append("headers are changed")
    if route.match == RequestMatch() and not route.origin:
        says.append("no VirtualService routes it")
    return "; ".join(says)


def _location(redirect: Redirect) -> str:
    place = f"{redirect.scheme + '://' if redirect.scheme else ''}{redirect.authority}"
    port = f":{redirect.port}" if redirect.port else ""
    return f"{place}{port}{redirect.path}" or "the same place"


def _taken(scene: Scene, route: Route, http_port: int) -> tuple[Branch, ...]:
    rest = _acted(scene, route)
    fault = route.fault
    if fault is None:
        return rest
    origin = _below(route.origin, ".fault")
    steps = (Step(Part.FAULT, "", _fault_says(fault), origin),)
    aborted = fault.abort_percent / 100 if _aborts(fault) else 0.0
    branches = [replace(each, share=each.share * (1 - aborted), steps=(*steps, *each.steps)) for each in rest]
    if aborted:
        reason = f"{fault.abort_percent:g} % are aborted on purpose"
        status = 200 if fault.abort_grpc_status else fault.abort_status or 0
        below = _below(route.origin, ".fault.abort")
        outcome = Outcome(Result.REFUSED, status, reason, "remove fault.abort from the rule", below)
        branches.insert(0, Branch(aborted, outcome, steps))
    return tuple(each for each in branches if each.share > 0)


def _aborts(fault: Fault) -> bool:
    return fault.abort_status is not None or bool(fault.abort_grpc_status)


def _fault_says(fault: Fault) -> str:
    says = []
    if fault.delay is not None:
        says.append(f"{fault.delay_percent:g} % are delayed by {fault.delay:g} s")
    if _aborts(fault):
        says.append(f"{fault.abort_percent:g} % are aborted with {fault.abort_grpc_status or fault.abort_status}")
    return ", ".join(says)


def _acted(scene: Scene, route: Route) -> tuple[Branch, ...]:
    if route.redirect is not None:
        outcome = Outcome(
            Result.ANSWERED,
            route.redirect.status,
            f"redirected to {_location(route.redirect)}",
            origins=_below(route.origin, ".redirect"),
        )
        return (Branch(1.0, outcome),)
    if route.response is not None:
        problem = scene.problem(route.origin, route.origin.field if route.origin else "")
        if problem is not None and problem.message.startswith("nothing can be done"):
            outcome = Outcome(Result.REFUSED, route.response.status, problem.message, problem.hint, (problem.origin,))
        else:
            says = "the proxy answers, as the rule says"
            outcome = Outcome(
                Result.ANSWERED, route.response.status, says, origins=_below(route.origin, ".directResponse")
            )
        return (Branch(1.0, outcome),)
    total = sum(target.weight for target in route.targets)
    branches: list[Branch] = []
    for target in route.targets:
        within = destination_field(scene.snapshot, route, target.destination)
        found = forwarded(scene, target.destination, http=True, origin=route.origin, within=within)
        branches += [replace(each, share=each.share * target.weight / total) for each in found]
    return tuple(branches)


def _below(origin: Origin | None, field: str) -> tuple[Origin, ...]:
    return (replace(origin, field=origin.field + field),) if origin else ()
