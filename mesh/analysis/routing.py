"""Routes that are never used: another VirtualService has the host, an earlier rule has every request."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.analysis.model import Code, Finding, Fix, Severity
from mesh.analysis.view import View
from mesh.istio.base import IstioObject, age
from mesh.istio.rules import host_covers
from mesh.istio.virtual_service import MESH_GATEWAY, VirtualService

SHADOWED = Code(
    "HDL0201",
    "host-routed-twice",
    Severity.WARNING,
    "Two VirtualServices for sidecars route the same host: the older one counts, and the other's routes are not used.",
    "Put the routes into one VirtualService, or export them to different namespaces.",
    ("IST0109",),
)
UNREACHABLE = Code(
    "HDL0202",
    "rule-never-reached",
    Severity.WARNING,
    "An earlier HTTP rule takes every request, or exactly those of this one.",
    "Move the narrower rule to the front, or remove it.",
    ("IST0130", "IST0131"),
)
NOT_AT_GATEWAY = Code(
    "HDL0203",
    "host-not-at-gateway",
    Severity.WARNING,
    "A VirtualService routes a host that its Gateway does not serve.",
    "Add the host to a server of the Gateway, or correct it.",
    ("IST0132",),
)
OF_SIDECARS = Code(
    "HDL0206",
    "subsets-of-sidecars-alone",
    Severity.WARNING,
    "A VirtualService of a gateway sends to a host as a whole, which another one splits into subsets for sidecars: "
    "requests from the gateway do not go by those rules.",
    "Repeat the subsets in the VirtualService of the gateway, if they are meant for its requests too.",
    ("IST0140",),
)
_ALL = frozenset(("*",))
CODES = (SHADOWED, UNREACHABLE, NOT_AT_GATEWAY)
AFTER_GATEWAYS = (OF_SIDECARS,)


def host_is_routed_once(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    if not thing.spec.applies_to_mesh:
        return
    for index, host in enumerate(thing.spec.hosts):
        full = view.full(host, thing.namespace)
        others = [each for each in view.mesh_routes.get(full, ()) if each.key != thing.key and _meet(each, thing)]
        if not others:
            continue
        older = [each for each in others if age(each) < age(thing)]
        says = (
            f"{older[0]} routes {full} too and is older: these routes are not used for it"
            if older
            else f"{others[0]} routes {full} too and is younger: its routes are not used for it"
        )
        hint = "put the routes into one VirtualService"
        yield SHADOWED.on(thing, "spec", "hosts", index, says=says, hint=hint, value=host)


def _meet(one: IstioObject[VirtualService], other: IstioObject[VirtualService]) -> bool:
    """Whether some namespace sees both."""
    targets = [_seen_in(each.spec.export_to, each.namespace) for each in (one, other)]
    return all(targets) and (any("*" in those for those in targets) or bool(targets[0] & targets[1]))


def _seen_in(export_to: tuple[str, ...], owner: str) -> frozenset[str]:
    """Namespaces, `*` for all of them."""
    return frozenset(owner if each == "." else each for each in export_to if each != "~") if export_to else _ALL


def rules_are_reached(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    seen: dict[object, int] = {}
    takes_all: int | None = None
    for index, route in enumerate(thing.spec.http):
        hint = "move it to the front, or remove it"
        if takes_all is not None:
            says = f"http[{takes_all}] takes every request: this rule is never reached"
            fix = Fix(("spec", "http", index))
            yield UNREACHABLE.on(thing, "spec", "http", index, says=says, hint=hint, fix=fix)
            continue
        for nth, match in enumerate(route.match):
            told = match.model_copy(update={"name": "", "stat_prefix": ""})
            before = seen.setdefault(told, index)
            if before != index:
                says = f"http[{before}] has the same match: this one is never reached"
                yield UNREACHABLE.on(thing, "spec", "http", index, "match", nth, says=says, hint=hint)
        if not route.match:
            takes_all = index


def hosts_are_at_the_gateway(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    names = [name for name in thing.spec.gateways if name != MESH_GATEWAY]
    found = [gateway for _, gateway in (view.gateway(name, thing.namespace) for name in names) if gateway is not None]
    if not found or len(found) < len(names) or len(names) < len(thing.spec.gateways):
        return  # what is not there is reported as such, and sidecars take any host
    served = [
        host.rpartition("/")[2]
        for gateway in found
        for server in gateway.spec.servers
        for host in server.hosts
        if _of_namespace(host.partition("/"), gateway.namespace, thing.namespace)
    ]
    for index, host in enumerate(thing.spec.hosts):
        full = view.full(host, thing.namespace)
        known = (host, full)
        if not any(host_covers(at, each) or host_covers(each, at) for at in served for each in known):
            says = f"{' and '.join(map(str, found))} does not serve {host} for namespace {thing.namespace}"
            hint = "add it to a server of the Gateway, or correct it"
            yield NOT_AT_GATEWAY.on(thing, "spec", "hosts", index, says=says, hint=hint, value=host)


def subsets_are_for_gateways_too(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    if thing.spec.applies_to_mesh:
        return
    for index, route in enumerate(thing.spec.http):
        for nth, target in enumerate(route.route):
            host = view.full(target.destination.host, thing.namespace)
            others = [] if target.destination.subset else view.mesh_routes.get(host, ())
            other = next((each for each in others if each.key != thing.key and _splits(view, each, host)), None)
            if other is not None:
                says = f"{other} splits {host} into subsets for sidecars, and not for requests that come by the gateway"
                path = ("spec", "http", index, "route", nth, "destination")
                yield OF_SIDECARS.on(thing, *path, says=says, hint="name the subset here too, if that is meant")


def _splits(view: View, thing: IstioObject[VirtualService], host: str) -> bool:
    targets = (target.destination for route in thing.spec.http for target in route.route)
    return any(each.subset and view.full(each.host, thing.namespace) == host for each in targets)


def _of_namespace(host: tuple[str, str, str], owner: str, namespace: str) -> bool:
    """Whether a server's host (`namespace/name`, parted) is for VirtualServices of `namespace`."""
    said, slash, _ = host
    return not slash or said in ("*", namespace) or (said == "." and owner == namespace)
