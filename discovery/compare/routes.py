"""What differs between two route tables: virtual hosts by name, routes in order, shares of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from difflib import SequenceMatcher

from discovery.compare.model import Change
from discovery.compare.words import said, short, short_host
from discovery.explain.objects import destination_field
from discovery.plan.model import RequestMatch, Route, RouteTable, Target, VirtualHost
from discovery.plan.origins import Origin
from mesh.snapshot import Snapshot

_FIELDS = {
    "redirect": ".redirect",
    "response": ".directResponse",
    "rewrite": ".rewrite",
    "timeout": ".timeout",
    "retries": ".retries",
    "fault": ".fault",
    "request_headers": ".headers.request",
    "response_headers": ".headers.response",
}
_OTHERWISE = ("match", "targets", "origin", "name")


def table_changes(
    before: RouteTable | None, after: RouteTable | None, old: Snapshot, new: Snapshot
) -> Iterator[Change]:
    """One table of that name before and after; None where there is none."""
    was = {host.name: host for host in before.virtual_hosts} if before else {}
    now = {host.name: host for host in after.virtual_hosts} if after else {}
    for name in sorted({*was, *now}):
        if was.get(name) is not now.get(name):
            yield from _host_changes(was.get(name), now.get(name), old, new)


def _host_changes(
    before: VirtualHost | None, after: VirtualHost | None, old: Snapshot, new: Snapshot
) -> Iterator[Change]:
    host = after or before
    assert host is not None
    name = short_host(host.name)
    if before is None or after is None:
        does = "; ".join(route_words(route) for route in host.routes) or "404"
        yield Change(
            "virtual host", name, "", "" if before is None else does, "" if after is None else does, host.origins
        )
        return
    for field, was, now in (
        ("names", before.domains, after.domains),
        ("requires TLS", before.require_tls, after.require_tls),
    ):
        if was != now:
            yield Change("virtual host", name, field, said(was), said(now), after.origins)
    yield from _routes(name, before.routes, after.routes, old, new)


def _routes(
    host: str, before: tuple[Route, ...], after: tuple[Route, ...], old: Snapshot, new: Snapshot
) -> Iterator[Change]:
    """Routes are the same where their matches are; each of the others came, went, or moved."""
    was, now = [_key(route) for route in before], [_key(route) for route in after]
    came: list[tuple[int, Route]] = []
    went: list[tuple[int, Route]] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, was, now, autojunk=False).get_opcodes():
        if tag == "equal":
            for one, other in zip(range(i1, i2), range(j1, j2), strict=True):
                yield from _route_changes(_named(host, other, after[other]), before[one], after[other], old, new)
        else:
            went += [(at, before[at]) for at in range(i1, i2)]
            came += [(at, after[at]) for at in range(j1, j2)]
    moved = {_key(route) for _, route in came} & {_key(route) for _, route in went}
    for at, route in came:
        if _key(route) in moved:
            place = next(number for number, each in went if _key(each) == _key(route))
            name = _named(host, at, route)
            yield Change("route", name, "place", str(place + 1), str(at + 1), _below(route, ""))
            yield from _route_changes(name, before[place], route, old, new)
        else:
            yield Change("route", _named(host, at, route), "", "", route_words(route), _below(route, ""))
    for at, route in went:
        if _key(route) not in moved:
            yield Change("route", _named(host, at, route), "", route_words(route), "", _below(route, ""))


def _key(route: Route) -> RequestMatch:
    return route.match


def _named(host: str, at: int, route: Route) -> str:
    """`reviews.default.svc:9080 #2`; the route for all requests needs no number."""
    label = f"#{at + 1}" + (f" {route.name}" if route.name else "")
    return host if route.match == RequestMatch() else f"{host} {label}"


def _route_changes(name: str, before: Route, after: Route, old: Snapshot, new: Snapshot) -> Iterator[Change]:
    if before is after:
        return
    yield from _share_changes(name, before, after, old, new)
    for field in fields(Route):
        if field.name in _OTHERWISE:
            continue
        was, now = getattr(before, field.name), getattr(after, field.name)
        if was != now:
            decided = after if after.origin is not None else before
            origins = _below(decided, _FIELDS.get(field.name, ""))
            yield Change("route", name, field.name.replace("_", " "), said(was), said(now), origins)


def _share_changes(name: str, before: Route, after: Route, old: Snapshot, new: Snapshot) -> Iterator[Change]:
    was, now = _shares(before), _shares(after)
    for destination in dict.fromkeys((*was, *now)):
        one, other = was.get(destination, 0.0), now.get(destination, 0.0)
        if one != other:
            route, snapshot = (after, new) if destination in now and after.origin else (before, old)
            field = destination_field(snapshot, route, destination)
            weighted = ".weight" if ".route[" in field and len(route.targets) > 1 else ""
            origin = (replace(route.origin, field=f"{field}{weighted}"),) if route.origin else ()
            yield Change("route", name, f"weight {_target(destination, name)}", f"{one:g}", f"{other:g}", origin)
    changes = {each.destination: each for each in before.targets}
    for target in after.targets:
        other_target = changes.get(target.destination)
        if other_target is not None:
            yield from _header_changes(name, other_target, target, after)


def _header_changes(name: str, before: Target, after: Target, route: Route) -> Iterator[Change]:
    for field, within in (("request_headers", "request"), ("response_headers", "response")):
        was, now = getattr(before, field), getattr(after, field)
        if was != now:
            what = f"{within} headers of {_target(after.destination, name)}"
            yield Change("route", name, what, said(was), said(now), _below(route, ".route"))


def _shares(route: Route) -> dict[str, float]:
    """Percent of the requests, by destination."""
    total = sum(target.weight for target in route.targets)
    return {target.destination: round(target.weight * 100 / total, 2) for target in route.targets} if total else {}


def _target(destination: str, host: str) -> str:
    """The subset alone, where the destination is the virtual host's own service."""
    words = short(destination)
    service, _, subset = words.partition(" subset ")
    return (subset or "without subset") if host.partition(" ")[0] == service else words


def route_words(route: Route) -> str:
    """What the route does, in a few words."""
    when = "" if route.match == RequestMatch() else f"{said(route.match)}: "
    if route.redirect is not None:
        return f"{when}redirect to {said(route.redirect)}"
    if route.response is not None:
        return f"{when}answer {route.response.status}"
    shares = _shares(route)
    if len(shares) == 1:
        return when + "to " + short(next(iter(shares)))
    return when + "to " + ", ".join(f"{short(name)} ({share:g})" for name, share in shares.items())


def _below(route: Route, field: str) -> tuple[Origin, ...]:
    return (replace(route.origin, field=route.origin.field + field),) if route.origin else ()


def tables_by_name(tables: Iterable[RouteTable]) -> dict[str, RouteTable]:
    return {table.name: table for table in tables}
