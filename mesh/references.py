"""What objects say of each other: a subset, Gateway or Service that is named and not there.

Findings are warnings: what is missing among some files may exist in the cluster. So a reference is looked at only when
the files hold objects of the kind that it leads to: a DestinationRule for that host, any Gateway, a Service in that
namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mesh.istio.base import IstioObject
from mesh.istio.destination import Destination
from mesh.istio.destination_rule import DestinationRule
from mesh.istio.rules import host_covers, is_ip
from mesh.istio.virtual_service import MESH_GATEWAY, VirtualService
from mesh.problems import FieldProblem, Path

Finding = tuple[IstioObject[Any], FieldProblem]
CLUSTER_DOMAIN = "cluster.local"


def full_host(host: str, namespace: str, domain: str = CLUSTER_DOMAIN) -> str:
    """A host as Istio reads it in an object of `namespace`: names without a dot are Services of that namespace."""
    return host if "." in host or host == "*" or is_ip(host) else f"{host}.{namespace}.svc.{domain}"


def check_references(
    objects: Iterable[IstioObject[Any]],
    services: Iterable[tuple[str, str]] = (),
    foreign_hosts: Iterable[str] = (),
    domain: str = CLUSTER_DOMAIN,
) -> tuple[Finding, ...]:
    """Warnings about references between `objects`.

    `services`: namespace and name of each Service beside them; `foreign_hosts`: the hosts of ServiceEntries there.
    """
    everything = tuple(objects)
    rules = [each for each in everything if isinstance(each.spec, DestinationRule)]
    gateways = frozenset((each.namespace, each.name) for each in everything if each.kind == "Gateway")
    known = frozenset(services)
    entries = tuple(foreign_hosts)
    found: list[Finding] = []
    for each in everything:
        if isinstance(each.spec, VirtualService):
            if gateways:
                found.extend((each, missing) for missing in _missing_gateways(each, gateways))
            for path, destination in _destinations(each.spec):
                found.extend((each, missing) for missing in _missing_subset(each, path, destination, rules, domain))
                if known:
                    found.extend(
                        (each, missing) for missing in _missing_service(each, path, destination, known, entries, domain)
                    )
    return tuple(found)


def _destinations(spec: VirtualService) -> Iterator[tuple[Path, Destination]]:
    sections: Mapping[str, Any] = {"http": spec.http, "tcp": spec.tcp, "tls": spec.tls}
    for section, routes in sections.items():
        for index, route in enumerate(routes):
            for nth, target in enumerate(route.route):
                yield ("spec", section, index, "route", nth, "destination"), target.destination


def _missing_gateways(
    each: IstioObject[VirtualService], gateways: frozenset[tuple[str, str]]
) -> Iterator[FieldProblem]:
    places: list[tuple[Path, str]] = [(("spec", "gateways", at), name) for at, name in enumerate(each.spec.gateways)]
    for index, route in enumerate(each.spec.http):
        for nth, match in enumerate(route.match):
            where = ("spec", "http", index, "match", nth, "gateways")
            places.extend(((*where, at), name) for at, name in enumerate(match.gateways))
    for path, name in places:
        namespace, _, short = name.rpartition("/")
        if name != MESH_GATEWAY and (namespace or each.namespace, short) not in gateways:
            says = f"there is no Gateway {namespace or each.namespace}/{short} among these files"
            yield FieldProblem(path, says, "add it, or correct the name", warning=True)


def _missing_subset(
    each: IstioObject[VirtualService],
    path: Path,
    destination: Destination,
    rules: list[IstioObject[DestinationRule]],
    domain: str,
) -> Iterator[FieldProblem]:
    if not destination.subset:
        return
    host = full_host(destination.host, each.namespace, domain)
    matching = [rule for rule in rules if host_covers(full_host(rule.spec.host, rule.namespace, domain), host)]
    subsets = sorted({subset.name for rule in matching for subset in rule.spec.subsets})
    if matching and destination.subset not in subsets:
        names = " and ".join(str(rule) for rule in matching)
        says = f"{names} has no subset {destination.subset!r}: requests routed there fail"
        hint = f"use one of {', '.join(subsets)}, or define it" if subsets else "define it"
        yield FieldProblem((*path, "subset"), says, hint, warning=True)


def _missing_service(
    each: IstioObject[VirtualService],
    path: Path,
    destination: Destination,
    services: frozenset[tuple[str, str]],
    entries: tuple[str, ...],
    domain: str,
) -> Iterator[FieldProblem]:
    host = full_host(destination.host, each.namespace, domain)
    name, _, rest = host.removesuffix(f".svc.{domain}").partition(".")
    if not host.endswith(f".svc.{domain}") or any(host_covers(entry, host) for entry in entries):
        return
    if rest in {namespace for namespace, _ in services} and (rest, name) not in services:
        says = f"there is no Service {rest}/{name} among these files"
        yield FieldProblem((*path, "host"), says, "add it, or correct the host", warning=True)
