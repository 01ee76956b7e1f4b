"""What differs between the plans of many proxies, before and after a change of objects.

    differences(old, new)

Parts that proxies share are compared once, and equal changes of several proxies are one, so that the answer is as long
as the change, not as the mesh. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

from discovery.compare.model import Change, Difference
from discovery.compare.routes import table_changes, tables_by_name
from discovery.compare.words import said, short
from discovery.explain.objects import tls_origin
from discovery.plan.memo import Scopes, changed_keys
from discovery.plan.model import (
    Destination,
    Endpoint,
    EndpointSet,
    GatewayListener,
    InboundPort,
    Layer,
    OutboundListener,
    Plan,
    Resolution,
    Role,
)
from discovery.plan.origins import Origin, Problem
from discovery.plan.plan import plan, proxy_of
from discovery.plan.reporting import Reporting
from discovery.plan.workloads import is_gateway
from mesh.objects import Key
from mesh.snapshot import Snapshot

Changes = tuple[Change, ...]
_name = attrgetter("name")


def differences(old: Snapshot, new: Snapshot, scopes: Scopes | None = None) -> tuple[Difference, ...]:
    """Sets of proxies, the largest first, with the changes that all of a set get."""
    scopes = Scopes() if scopes is None else scopes
    was = {key: plan(old, proxy_of(old, key), scopes) for key in proxies(old)}
    now = {key: plan(new, proxy_of(new, key), scopes) for key in proxies(new)}
    compare = _Comparison(old, new)
    touched = _changed(old, new)
    found: dict[Change, list[Key]] = {}
    for key in sorted({*was, *now}):
        for change in compare.plans(was.get(key), now.get(key)):
            found.setdefault(_because(change, touched), []).append(key)
    sets: dict[tuple[Key, ...], list[Change]] = {}
    for change, keys in found.items():
        sets.setdefault(tuple(keys), []).append(change)
    ordered = sorted(sets.items(), key=lambda item: (-len(item[0]), item[0]))
    return tuple(Difference(tuple(changes), keys) for keys, changes in ordered)


def proxies(snapshot: Snapshot) -> list[Key]:
    """The pods that have one."""
    return [key for key, pod in snapshot.pods.items() if (pod.has_sidecar or is_gateway(pod)) and not pod.finished]


class _Comparison:
    """Remembers what it has compared, by the very objects."""

    def __init__(self, old: Snapshot, new: Snapshot) -> None:
        self.old, self.new = old, new
        self._known: dict[tuple[int, int], Changes] = {}

    def plans(self, before: Plan | None, after: Plan | None) -> Iterator[Change]:
        if before is None or after is None:
            yield Change("proxy", "", "", "" if before is None else "is there", "" if after is None else "is there")
            return
        if before is after:
            return
        yield from self._once(before.shared or Layer(), after.shared or Layer(), self._layers)
        yield from self._layers(_own(before), _own(after))
        yield from self._once(before.endpoints, after.endpoints, self._endpoints(before, after))
        yield from self._once(before.inbound, after.inbound, _inbound)
        yield from self._once(before.gateways, after.gateways, _gateways)
        yield from self._once(before.problems, after.problems, _problems)
        yield from _settings(before, after, _settings_at(self.new))

    def _once(self, before: Any, after: Any, compare: Callable[[Any, Any], Iterable[Change]]) -> Changes:
        """`compare(before, after)`, once for the same two objects; they live as long as the plans do."""
        if before is after:
            return ()
        key = (id(before), id(after))
        if key not in self._known:
            self._known[key] = tuple(compare(before, after))
        return self._known[key]

    def _layers(self, before: Layer, after: Layer) -> Iterator[Change]:
        yield from _by_name(before.outbound, after.outbound, self._listener)
        was, now = tables_by_name(before.route_tables), tables_by_name(after.route_tables)
        for name in sorted({*was, *now}):
            if was.get(name) is not now.get(name) and not name.startswith("inbound|"):
                yield from table_changes(was.get(name), now.get(name), self.old, self.new)
        yield from _by_name(before.destinations, after.destinations, self._destination)

    def _listener(self, before: OutboundListener | None, after: OutboundListener | None) -> Iterator[Change]:
        listener = after or before
        assert listener is not None
        yield from _element("listener", listener.name, before, after, listener.origins, skip=("route_table",))

    def _destination(self, before: Destination | None, after: Destination | None) -> Iterator[Change]:
        destination = after or before
        assert destination is not None
        if destination.resolution in (Resolution.NOWHERE, Resolution.LOCAL):
            return  # what leads nowhere is said as a problem, what leads to the app as an inbound port
        for change in _element("destination", short(destination.name), before, after, destination.origins):
            if change.what.startswith("tls"):
                fields_of_rule = tls_origin(self.new, after) if after else ()
                was = tls_origin(self.old, before) if before else ()
                yield replace(change, origins=fields_of_rule or was or change.origins)
            else:
                yield change

    def _endpoints(
        self, before: Plan, after: Plan
    ) -> Callable[[tuple[EndpointSet, ...], tuple[EndpointSet, ...]], Iterator[Change]]:
        def compare(was: tuple[EndpointSet, ...], now: tuple[EndpointSet, ...]) -> Iterator[Change]:
            old_sets, new_sets = {one.name: one for one in was}, {one.name: one for one in now}
            origins = {each.name: each.origins[:1] for each in (*before.destinations, *after.destinations)}
            for name in sorted(old_sets.keys() & new_sets.keys()):
                if old_sets[name] is not new_sets[name]:
                    yield from _set_changes(name, old_sets[name], new_sets[name], origins.get(name, ()))

        return compare


def _own(made: Plan) -> Layer:
    return made.own if made.shared is not None else Layer(made.outbound, made.route_tables, made.destinations)


def _by_name(
    before: Iterable[Any], after: Iterable[Any], compare: Callable[[Any, Any], Iterable[Change]]
) -> Iterator[Change]:
    was, now = {_name(one): one for one in before}, {_name(one): one for one in after}
    for name in sorted({*was, *now}):
        if was.get(name) is not now.get(name) and was.get(name) != now.get(name):
            yield from compare(was.get(name), now.get(name))


def _element(
    part: str, name: str, before: Any, after: Any, origins: tuple[Origin, ...], skip: tuple[str, ...] = ()
) -> Iterator[Change]:
    """A whole element that came or went, or each of its fields that differs."""
    if before is None or after is None:
        there = "is there"
        yield Change(part, name, "", "" if before is None else there, "" if after is None else there, origins)
        return
    for what, was, now in _fields(before, after, ("name", "origins", *skip)):
        yield Change(part, name, what, said(was), said(now), origins)


def _fields(before: Any, after: Any, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, Any]]:
    """The fields that differ, those of a part one by one where both have that part."""
    for field in fields(before):
        was, now = getattr(before, field.name), getattr(after, field.name)
        if field.name in skip or was == now:
            continue
        what = field.name.replace("_", " ")
        if is_dataclass(was) and type(was) is type(now):
            yield from ((f"{what} {inner}", one, other) for inner, one, other in _fields(was, now))
        else:
            yield what, was, now


def _set_changes(name: str, before: EndpointSet, after: EndpointSet, origins: tuple[Origin, ...]) -> Iterator[Change]:
    was, now = ({_at(one): one for one in each.endpoints} for each in (before, after))
    gone = tuple(was[at] for at in was if at not in now)
    new = tuple(now[at] for at in now if at not in was)
    if gone or new:
        yield Change("endpoints", short(name), "", _listed(gone), _listed(new), origins)
    for at in was.keys() & now.keys():
        for what, one, other in _fields(was[at], now[at]):
            yield Change("endpoints", short(name), f"{said(now[at])} {what}", said(one), said(other), origins)


def _listed(endpoints: Iterable[Endpoint]) -> str:
    return ", ".join(sorted(map(said, endpoints)))


def _at(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.address, endpoint.port


def _inbound(before: tuple[InboundPort, ...], after: tuple[InboundPort, ...]) -> Iterator[Change]:
    was, now = {port.port: port for port in before}, {port.port: port for port in after}
    for number in sorted({*was, *now}):
        port = now.get(number) or was[number]
        skip = ("port", "route_table", "destination")
        for change in _element("inbound port", str(number), was.get(number), now.get(number), port.origins, skip):
            kind = "PeerAuthentication" if change.what == "peer tls" else "Service"
            both = dict.fromkeys((*port.origins, *(was[number].origins if number in was else ())))
            yield replace(change, origins=tuple(origin for origin in both if origin.kind == kind))


def _gateways(before: tuple[GatewayListener, ...], after: tuple[GatewayListener, ...]) -> Iterator[Change]:
    was, now = {one.name: one for one in before}, {one.name: one for one in after}
    for name in sorted({*was, *now}):
        old_servers = {_server(one): one for one in was[name].servers} if name in was else {}
        new_servers = {_server(one): one for one in now[name].servers} if name in now else {}
        for at in dict.fromkeys((*old_servers, *new_servers)):
            one, other = old_servers.get(at), new_servers.get(at)
            server = other or one
            assert server is not None
            yield from _element("gateway server", f"{name} {at}".rstrip(), one, other, server.origins)


def _server(server: Any) -> str:
    return ", ".join(server.sni) or ("any name" if server.tls is not None else "")


def _problems(before: tuple[Problem, ...], after: tuple[Problem, ...]) -> Iterator[Change]:
    was, now = set(before), set(after)
    for problem in (*(each for each in after if each not in was), *(each for each in before if each not in now)):
        text = f"{problem.message} ({problem.hint})"
        there = problem in now
        yield Change("problem", "", "", "" if there else text, text if there else "", (problem.origin,))


def _settings_at(snapshot: Snapshot) -> Origin:
    return Origin("ConfigMap", *snapshot.settings_at)


def _settings(before: Plan, after: Plan, settings: Origin) -> Iterator[Change]:
    for part, what, was, now in (
        ("unknown destinations", "passed through", before.allow_any, after.allow_any),
        ("other trust domains", "", before.other_trust_domains, after.other_trust_domains),
        ("identity", "", before.proxy.identity, after.proxy.identity),
    ):
        if was != now:
            yield Change(part, "", what, said(was), said(now), () if part == "identity" else (settings,))
    yield from _reporting(before.reporting, after.reporting, settings)
    if after.proxy.role is Role.SIDECAR and before.inbound_default is not after.inbound_default:
        # Every port has the policies of its workload among its origins.
        ports = (*after.inbound, *before.inbound)
        policies = dict.fromkeys(each for port in ports for each in port.origins if each.kind == "PeerAuthentication")
        old, new = before.inbound_default.value, after.inbound_default.value
        yield Change("ports that nobody names", "", "peer tls", old, new, tuple(policies))


def _reporting(before: Reporting, after: Reporting, settings: Origin) -> Iterator[Change]:
    origins = tuple(dict.fromkeys((*before.origins, *after.origins, settings)))
    for part, old, new in (
        ("access log of requests out", before.client_logs, after.client_logs),
        ("access log of requests in", before.server_logs, after.server_logs),
        ("metrics of requests out", before.client_metrics, after.client_metrics),
        ("metrics of requests in", before.server_metrics, after.server_metrics),
    ):
        if old != new:
            yield Change(part, "", "", said(old), said(new), origins)


def _because(change: Change, touched: frozenset[Origin]) -> Change:
    """The change with those of its objects that are other ones than before, where any of them is."""
    origins = tuple(origin for origin in change.origins if replace(origin, field="") in touched)
    return replace(change, origins=origins) if origins else change


def _changed(old: Snapshot, new: Snapshot) -> frozenset[Origin]:
    """The objects that are not the same in both, without fields."""
    was = {**old.istio, "Service": old.services, "Pod": old.pods}
    now = {**new.istio, "Service": new.services, "Pod": new.pods}
    found = {Origin(kind, *key) for kind in {*was, *now} for key in changed_keys(was.get(kind, {}), now.get(kind, {}))}
    return frozenset(found | ({_settings_at(new)} if old.settings != new.settings else set()))
