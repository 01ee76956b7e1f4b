"""Endpoints as they look from one place: near ones first, and by the IP families that the client has.

Near ones go first by Envoy's priorities: as long as any of them answers they get everything, and when none is left (or
outlier detection has ejected them) the others do. Kubernetes' hints are not used: they leave the others out.
Sources: https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution (PreferSameZone and
PreferSameNode), https://istio.io/latest/docs/tasks/traffic-management/locality-load-balancing/failover/ (by region)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter

from discovery.plan.destinations import Memory, Wanted
from discovery.plan.endpoints import Backend, Backends, with_labels
from discovery.plan.memo import Memo
from discovery.plan.model import Endpoint, EndpointSet
from discovery.plan.services import Near
from mesh.objects import Node, Pod


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client is, as far as any service asks: what does not matter is empty, so that places are few.

    `family`: the only IP version that it has, 4 or 6, where endpoints differ in theirs; 0 when both, or all the same.
    """

    region: str = ""
    zone: str = ""
    node: str = ""
    family: int = 0


NOWHERE = Place()
Regions = tuple[tuple[str, str], ...]
"""Zones and the region of each."""


def place_of(pod: Pod | None, nodes: Mapping[str, Node], near: Iterable[Near], mixed: bool) -> Place:
    """`near`: what services ask for; `mixed`: endpoints have addresses of both IP versions."""
    asked = frozenset(near)
    if pod is None or (not mixed and asked <= {Near.ANY}):
        return NOWHERE
    node = nodes.get(pod.node)
    versions = {6 if ":" in ip else 4 for ip in pod.ips}
    return Place(
        region=node.region if node and asked > {Near.ANY} else "",
        zone=node.zone if node and asked > {Near.ANY} else "",
        node=pod.node if Near.NODE in asked else "",
        family=versions.pop() if mixed and len(versions) == 1 else 0,
    )


def seen_from(
    memo: Memo, place: Place, sets: tuple[EndpointSet, ...], memory: Memory, regions: Regions
) -> tuple[EndpointSet, ...]:
    """`sets`, with those in the place of which something is nearer, or out of reach, made anew."""
    if place == NOWHERE:
        return sets
    changed: dict[str, EndpointSet] = {}
    for want, provided in memory.items():
        if provided.endpoints is not None and (want.entry.near is not Near.ANY or provided.backends.mixed):
            changed[want.name] = memo(_seen, want, provided.backends, place, regions)
    if not changed:
        return sets
    return tuple(sorted({**{one.name: one for one in sets}, **changed}.values(), key=attrgetter("name")))


def regions_of(nodes: Mapping[str, Node]) -> Regions:
    return tuple(sorted({(node.zone, node.region) for node in nodes.values() if node.zone and node.region}))


def _seen(want: Wanted, backends: Backends, place: Place, regions: Regions) -> EndpointSet:
    region_of = dict(regions)
    near = want.entry.near
    ranked: list[tuple[int, Endpoint]] = []
    for backend in with_labels(backends, want.port.name, want.labels):
        endpoint = _reachable(backend.endpoint, place.family)
        if endpoint is not None:
            ranked.append((_distance(backend, near, place, region_of), endpoint))
    # Envoy takes no gaps: the nearest that there are become 0.
    order = {distance: number for number, distance in enumerate(sorted({distance for distance, _ in ranked}))}
    return EndpointSet(want.name, tuple(replace(one, priority=order[distance]) for distance, one in ranked))


def _distance(backend: Backend, near: Near, place: Place, region_of: Mapping[str, str]) -> int:
    if near is Near.ANY:
        return 0
    if near is Near.NODE and place.node and backend.node == place.node:
        return 0
    if place.zone and backend.zone == place.zone:
        return 1
    if place.region and region_of.get(backend.zone) == place.region:
        return 2
    return 3


def _reachable(endpoint: Endpoint, family: int) -> Endpoint | None:
    """The endpoint by addresses of `family`; None when it has none."""
    if not family:
        return endpoint
    addresses = [each for each in (endpoint.address, *endpoint.also) if (":" in each) == (family == 6)]
    if not addresses:
        return None
    return replace(endpoint, address=addresses[0], also=tuple(addresses[1:]))
