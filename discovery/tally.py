"""Which proxies have which of Istio's objects: for each object, how many plans come from it too, how many of those
proxies have applied it as it is now, and what those say that refuse something of it. Pure.

Plans say where each element comes from. What many proxies share is looked through once, not for each of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from discovery.plan.model import Layer, Plan
from discovery.plan.origins import Origin
from mesh.kinds import KINDS
from mesh.wire import Applied, ResourceType

MOST_REFUSALS = 5
MOST_LAYERS = 4096

_ISTIO = frozenset(kind.kind for kind in KINDS if kind.of_istio)


class Thing(NamedTuple):
    """One object of one of Istio's kinds."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Envoy's words about a resource that comes from the object. `pod`: `namespace/name`."""

    pod: str
    resource: str
    message: str


@dataclass(frozen=True, slots=True)
class Count:
    """Proxies that have applied an object, of those that it is for."""

    applied: int = 0
    total: int = 0
    refused: tuple[Refusal, ...] = ()

    def __add__(self, other: Count) -> Count:
        refused = (*self.refused, *other.refused)[:MOST_REFUSALS]
        return Count(self.applied + other.applied, self.total + other.total, refused)


NOBODY = Count()


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A connected proxy: its plan, the generation that it has applied, what it said of each type."""

    pod: str
    plan: Plan
    generation: int
    applied: Mapping[str, Applied] = field(default_factory=dict)


def tally(members: Iterable[Member], since: Mapping[Thing, int]) -> dict[Thing, Count]:
    """`since`: the generation in which each object became what it is."""
    groups: dict[Layer, list[int]] = {}
    counts: dict[Thing, Count] = {}
    for member in members:
        shared = member.plan.shared
        found = things_of(member.plan) if shared is None else of_own(member.plan)
        shared_things = frozenset() if shared is None else of_layer(shared)
        if shared is not None:
            groups.setdefault(shared, []).append(member.generation)
        for thing in found - shared_things:
            counts[thing] = counts.get(thing, NOBODY) + Count(int(member.generation >= since.get(thing, 0)), 1)
        for thing, refusal in _refusals(member):
            counts[thing] = counts.get(thing, NOBODY) + Count(refused=(refusal,))
    for layer, generations in groups.items():
        generations.sort()
        for thing in of_layer(layer):
            behind = bisect_left(generations, since.get(thing, 0))
            counts[thing] = counts.get(thing, NOBODY) + Count(len(generations) - behind, len(generations))
    return counts


@lru_cache(maxsize=MOST_LAYERS)
def of_layer(layer: Layer) -> frozenset[Thing]:
    """The objects that a layer comes from."""
    return frozenset(_things((layer.outbound, layer.route_tables, layer.destinations)))


def of_own(plan: Plan) -> frozenset[Thing]:
    """The objects that what is the proxy's own comes from."""
    own = plan.own
    return frozenset(_things((own.outbound, own.route_tables, own.destinations, plan.inbound, plan.gateways)))


def things_of(plan: Plan) -> frozenset[Thing]:
    """All objects that the plan comes from."""
    parts = (plan.outbound, plan.route_tables, plan.destinations, plan.inbound, plan.gateways)
    return frozenset(_things(parts))


def _things(parts: Iterable[Iterable[Any]]) -> Iterator[Thing]:
    for elements in parts:
        for element in elements:
            for origin in _origins(element):
                if origin.kind in _ISTIO:
                    yield Thing(origin.kind, origin.namespace, origin.name)


def _origins(element: Any) -> Iterator[Origin]:
    """Of an element and of what stands in it: hosts of a table, servers of a gateway's listener."""
    yield from getattr(element, "origins", ())
    for inner in (*getattr(element, "virtual_hosts", ()), *getattr(element, "servers", ())):
        yield from inner.origins


def _refusals(member: Member) -> Iterator[tuple[Thing, Refusal]]:
    for kind, state in member.applied.items():
        for rejection in state.rejected:
            refusal = Refusal(member.pod, rejection.name, rejection.message)
            for thing in sorted(set(_things((_behind(member.plan, kind, rejection.name),)))):
                yield thing, refusal


def _behind(plan: Plan, kind: str, name: str) -> list[Any]:
    """The elements that a resource was made from."""
    match kind:
        case ResourceType.CLUSTERS | ResourceType.ENDPOINTS:
            return [each for each in plan.destinations if each.name == name]
        case ResourceType.LISTENERS:
            ports = plan.inbound if name == "virtualInbound" else ()
            outbound = (each for each in plan.outbound if each.name == name)
            return [*ports, *outbound, *(each for each in plan.gateways if each.name == name)]
        case ResourceType.ROUTES:
            return [each for each in plan.route_tables if each.name == name]
        case ResourceType.VIRTUAL_HOSTS:
            table, _, host = name.partition("/")
            tables = (each for each in plan.route_tables if each.name == table)
            return [each for found in tables for each in found.virtual_hosts if each.name == host]
        case _:
            return []
