"""VirtualServices: their hosts and gateways by full name, and which one counts for a host.

For sidecars one VirtualService counts for a host: an exact host before a wildcard, a longer wildcard before a shorter
one, then the oldest. (Gateways put the routes of several together; see gateway.py.)
Source: https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from discovery.plan.hosts import by_specificity, covers, is_visible, qualify
from discovery.plan.memo import Memo
from discovery.plan.origins import Problem, problem_with
from mesh.istio.base import IstioObject, age
from mesh.istio.virtual_service import MESH_GATEWAY, VirtualService


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A VirtualService with full names. `gateways` holds `mesh` or `namespace/name`."""

    thing: IstioObject[VirtualService]
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    source_labels: frozenset[str]
    """Keys of the client labels that its matches ask for."""

    @property
    def spec(self) -> VirtualService:
        return self.thing.spec

    @property
    def namespace(self) -> str:
        return self.thing.namespace

    def is_visible(self, namespace: str) -> bool:
        return is_visible(self.spec.export_to, self.thing.namespace, namespace)


def full_gateway(name: str, namespace: str) -> str:
    """`namespace/name` (or `mesh`) of a gateway as a VirtualService of `namespace` writes it."""
    return name if name == MESH_GATEWAY or "/" in name else f"{namespace}/{name}"


def bound(thing: IstioObject[VirtualService], domain: str) -> Bound:
    return Bound(
        thing=thing,
        hosts=tuple(dict.fromkeys(qualify(host, thing.namespace, domain) for host in thing.spec.hosts)),
        gateways=tuple(full_gateway(name, thing.namespace) for name in thing.spec.gateways) or (MESH_GATEWAY,),
        source_labels=frozenset(
            label for rule in thing.spec.http for match in rule.match for label in match.source_labels
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class VirtualServices:
    """All, oldest first; `of_gateway` by `namespace/name` or `mesh`."""

    of_gateway: Mapping[str, tuple[Bound, ...]]
    source_labels: frozenset[str]


def virtual_services_of(memo: Memo, objects: Iterable[IstioObject[Any]], domain: str) -> VirtualServices:
    of_gateway: dict[str, list[Bound]] = {}
    everything = [memo(bound, thing, domain) for thing in sorted(objects, key=age)]
    for one in everything:
        for gateway in dict.fromkeys(one.gateways):
            of_gateway.setdefault(gateway, []).append(one)
    return VirtualServices(
        of_gateway={gateway: tuple(found) for gateway, found in of_gateway.items()},
        source_labels=frozenset().union(*(one.source_labels for one in everything)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class MeshHosts:
    """What sidecars of one namespace see: full host -> its VirtualService; `wildcards` most specific first."""

    by_host: Mapping[str, Bound]
    wildcards: tuple[str, ...]
    problems: tuple[Problem, ...]

    def find(self, host: str) -> Bound | None:
        exact = self.by_host.get(host)
        if exact is not None or not self.wildcards:
            return exact
        return next((self.by_host[pattern] for pattern in self.wildcards if covers(pattern, host)), None)


def mesh_hosts(found: VirtualServices, namespace: str) -> MeshHosts:
    by_host: dict[str, Bound] = {}
    problems: list[Problem] = []
    for one in found.of_gateway.get(MESH_GATEWAY, ()):
        if not one.is_visible(namespace):
            continue
        for index, host in enumerate(one.hosts):
            field = f"spec.hosts[{index}]"
            if host == "*":
                says = "* would be every host of every sidecar, and is left out"
                problems.append(problem_with(one.thing, field, says, "name hosts, or bind it to a gateway only"))
            elif host in by_host:
                first = by_host[host].thing
                says = f"{first.namespace}/{first.name} is older and routes {host}: these routes are not used for it"
                problems.append(problem_with(one.thing, field, says, "put the routes into one VirtualService"))
            else:
                by_host[host] = one
    wildcards = tuple(by_specificity(host for host in by_host if host.startswith("*")))
    return MeshHosts(by_host, wildcards, tuple(problems))
