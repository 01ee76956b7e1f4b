"""From an element of a plan to the field that decides it, where the plan names the object only."""

from __future__ import annotations

from collections.abc import Iterator

from discovery.plan.hosts import qualify
from discovery.plan.model import Destination, Route, VirtualHost
from discovery.plan.origins import Origin
from mesh.istio.destination_rule import DestinationRule, TrafficPolicy
from mesh.objects import Key
from mesh.settings import CLUSTER_DOMAIN
from mesh.snapshot import Snapshot


def settings_origin(snapshot: Snapshot, field: str) -> Origin:
    """The field of meshConfig; the ConfigMap is where this mesh's control plane has it."""
    return Origin("ConfigMap", *snapshot.settings_at, f"data.mesh: {field}")


def tls_origin(snapshot: Snapshot, destination: Destination) -> tuple[Origin, ...]:
    """The `tls` of the DestinationRule that holds for the destination; none where no rule says anything."""
    _, port, subset, _ = (*destination.name.split("|"), "", "", "", "")[:4]
    number = int(port) if port.isdigit() else 0
    rules = list(_rules(snapshot, destination))
    for origin, spec in rules:
        for at, each in enumerate(spec.subsets):
            if subset and each.name == subset:
                field = _tls_field(each.traffic_policy, number)
                if field:
                    return (_at(origin, f"spec.subsets[{at}].{field}"),)
    for origin, spec in rules:
        field = _tls_field(spec.traffic_policy, number)
        if field:
            return (_at(origin, f"spec.{field}"),)
    return ()


def subset_origin(snapshot: Snapshot, destination: Destination, subset: str) -> tuple[Origin, ...]:
    """Where the subset is defined."""
    for origin, spec in _rules(snapshot, destination):
        for at, each in enumerate(spec.subsets):
            if each.name == subset:
                return (_at(origin, f"spec.subsets[{at}].labels"),)
    return ()


def destination_field(snapshot: Snapshot, route: Route, destination: str) -> str:
    """`spec.http[0].route[1]`, the entry of the route's object that leads to `destination`; the rule itself where that
    cannot be told."""
    if route.origin is None:
        return ""
    thing = snapshot.of("VirtualService").get(Key(route.origin.namespace, route.origin.name))
    index = route.origin.field.removeprefix("spec.http[").removesuffix("]")
    if thing is None or not index.isdigit():
        return route.origin.field
    _, _, subset, host = (*destination.split("|"), "", "", "", "")[:4]
    for at, each in enumerate(thing.spec.http[int(index)].route):
        found = qualify(each.destination.host, thing.namespace, CLUSTER_DOMAIN)
        if (found, each.destination.subset) == (host, subset):
            return f"{route.origin.field}.route[{at}]"
    return route.origin.field


def left_out(snapshot: Snapshot, host: VirtualHost) -> Iterator[Origin]:
    """HTTP rules of the host's VirtualServices of which the plan has no route: they hold for others."""
    used = {(each.origin.namespace, each.origin.name, each.origin.field) for each in host.routes if each.origin}
    for origin in host.origins:
        if origin.kind != "VirtualService":
            continue
        thing = snapshot.of(origin.kind)[Key(origin.namespace, origin.name)]
        ended = False
        for at in range(len(thing.spec.http)):
            field = f"spec.http[{at}]"
            if (origin.namespace, origin.name, field) in used:
                ended = ended or not thing.spec.http[at].match
            elif not ended:
                yield _at(origin, field)


def _rules(snapshot: Snapshot, destination: Destination) -> Iterator[tuple[Origin, DestinationRule]]:
    for origin in destination.origins:
        if origin.kind == "DestinationRule":
            yield origin, snapshot.of(origin.kind)[Key(origin.namespace, origin.name)].spec


def _tls_field(policy: TrafficPolicy | None, port: int) -> str:
    if policy is None:
        return ""
    for at, each in enumerate(policy.port_level_settings):
        if each.port.number == port:
            return f"trafficPolicy.portLevelSettings[{at}].tls" if each.tls else ""
    return "trafficPolicy.tls" if policy.tls else ""


def _at(origin: Origin, field: str) -> Origin:
    return Origin(origin.kind, origin.namespace, origin.name, field)
