"""What an object names and what is not there: Services, subsets, Gateways, and pods behind a selector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.view import View
from mesh.istio.base import IstioObject
from mesh.istio.destination import Destination
from mesh.istio.destination_rule import DestinationRule
from mesh.istio.gateway import Gateway
from mesh.istio.rules import is_ip
from mesh.istio.virtual_service import MESH_GATEWAY, VirtualService
from mesh.problems import Path

NO_HOST = Code(
    "HDL0101",
    "no-such-host",
    Severity.ERROR,
    "A VirtualService sends requests to a host that neither a Service nor a ServiceEntry has: they fail with 503.",
    "Add the Service or ServiceEntry, or correct the host. Only a name without a dot is short for a Service.",
    ("IST0101",),
)
NO_SUBSET = Code(
    "HDL0102",
    "no-such-subset",
    Severity.ERROR,
    "A VirtualService sends requests to a subset that no DestinationRule of the host defines: they fail with 503.",
    "Define the subset in the DestinationRule, or correct its name.",
    ("IST0101",),
)
NO_GATEWAY = Code(
    "HDL0103",
    "no-such-gateway",
    Severity.ERROR,
    "A VirtualService is bound to a Gateway that is not there.",
    "Add the Gateway, or correct its name; another namespace's is written `namespace/name`.",
    ("IST0101", "IST0165"),
)
UNSELECTED_GATEWAY = Code(
    "HDL0104",
    "gateway-selects-no-pod",
    Severity.WARNING,
    "The selector of a Gateway chooses no pod, so that nobody opens its ports.",
    "Correct `spec.selector`, or deploy the gateway's pods.",
    ("IST0101",),
)
RULE_WITHOUT_HOST = Code(
    "HDL0105",
    "rule-for-no-host",
    Severity.WARNING,
    "A DestinationRule is for a host that neither a Service nor a ServiceEntry has: it has no effect.",
    "Add the Service or ServiceEntry, or correct the host.",
    ("IST0101", "IST0174"),
)
EMPTY_SUBSET = Code(
    "HDL0106",
    "subset-without-pods",
    Severity.WARNING,
    "The labels of a subset choose none of the pods of its Service: requests to it fail with 503.",
    "Correct the labels, or deploy the pods.",
    ("IST0101", "IST0173"),
)
CODES = (NO_HOST, NO_SUBSET, NO_GATEWAY, UNSELECTED_GATEWAY, RULE_WITHOUT_HOST, EMPTY_SUBSET)


def gateways_are_there(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    if not view.complete and not view.snapshot.of("Gateway"):
        return
    places: list[tuple[Path, str]] = [(("spec", "gateways", at), name) for at, name in enumerate(thing.spec.gateways)]
    for index, route in enumerate(thing.spec.http):
        for nth, match in enumerate(route.match):
            where = ("spec", "http", index, "match", nth, "gateways")
            places.extend(((*where, at), name) for at, name in enumerate(match.gateways))
    for path, name in places:
        if name == MESH_GATEWAY:
            continue
        key, found = view.gateway(name, thing.namespace)
        if found is None:
            says = f"there is no Gateway {key}{view.among}"
            yield NO_GATEWAY.on(thing, *path, says=says, hint="add it, or correct the name", value=name)


def destinations_are_there(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    for path, destination in destinations(thing.spec):
        yield from _host(view, thing, path, destination)
        yield from _subset(view, thing, path, destination)


def destinations(spec: VirtualService) -> Iterator[tuple[Path, Destination]]:
    """Where the rules send to, each with its path."""
    sections: Mapping[str, Any] = {"http": spec.http, "tcp": spec.tcp, "tls": spec.tls}
    for section, routes in sections.items():
        for index, route in enumerate(routes):
            for nth, target in enumerate(route.route):
                yield ("spec", section, index, "route", nth, "destination"), target.destination


def _host(view: View, thing: IstioObject[VirtualService], path: Path, destination: Destination) -> Iterator[Finding]:
    missing = _missing(view, view.full(destination.host, thing.namespace))
    if missing:
        hint = "add it, or correct the host"
        yield NO_HOST.on(thing, *path, "host", says=missing, hint=hint, value=destination.host)


def _missing(view: View, host: str) -> str:
    """Why the full name `host` is nobody's; "" when it is somebody's, or may be."""
    if host in view.service_hosts or view.is_entry(host):
        return ""
    inside = host.endswith(f".svc.{view.domain}")
    name, _, namespace = host.removesuffix(f".svc.{view.domain}").partition(".")
    if not inside:
        return f"neither a Service nor a ServiceEntry has the host {host}" if view.complete else ""
    if not view.complete and namespace not in view.service_namespaces:
        return ""
    return f"there is no Service {namespace}/{name}{view.among}"


def _subset(view: View, thing: IstioObject[VirtualService], path: Path, destination: Destination) -> Iterator[Finding]:
    if not destination.subset:
        return
    host = view.full(destination.host, thing.namespace)
    rules = view.rules_for(host)
    subsets = sorted({subset.name for rule in rules for subset in rule.spec.subsets})
    if destination.subset in subsets or (not rules and not view.complete):
        return
    names = " and ".join(str(rule) for rule in rules)
    says = (
        f"{names} has no subset {destination.subset!r}: requests routed there fail"
        if rules
        else f"there is no DestinationRule for {host}, which would define it: requests routed there fail"
    )
    hint = f"use one of {', '.join(subsets)}, or define it" if subsets else "define it"
    yield NO_SUBSET.on(thing, *path, "subset", says=says, hint=hint, value=destination.subset)


def gateway_is_served(view: View, thing: IstioObject[Gateway]) -> Iterator[Finding]:
    """Gateways choose pods of every namespace. Source: https://istio.io/latest/docs/reference/config/networking/gateway/"""
    if not thing.spec.selector or not (view.complete or view.workloads):
        return
    if not any(each.matches(thing.spec.selector) for those in view.workloads.values() for each in those):
        says = f"no pod has {_spelled(thing.spec.selector)}{view.among}: nobody opens these ports"
        hint = "correct the labels, or deploy the gateway"
        yield UNSELECTED_GATEWAY.on(thing, "spec", "selector", says=says, hint=hint)


def rule_has_a_host(view: View, thing: IstioObject[DestinationRule]) -> Iterator[Finding]:
    host = view.full(thing.spec.host, thing.namespace)
    if host.startswith("*") or is_ip(host):
        return
    missing = _missing(view, host)
    if missing:
        says = f"{missing}: the rule has no effect"
        hint = "add it, or correct the host"
        yield RULE_WITHOUT_HOST.on(thing, "spec", "host", says=says, hint=hint, value=thing.spec.host)


def subsets_have_pods(view: View, thing: IstioObject[DestinationRule]) -> Iterator[Finding]:
    service = view.service_hosts.get(view.full(thing.spec.host, thing.namespace))
    if service is None or not service.selector:
        return
    behind = [each for each in view.workloads.get(service.meta.namespace, ()) if each.matches(service.selector)]
    for index, subset in enumerate(thing.spec.subsets):
        if behind and not any(each.matches(subset.labels) for each in behind):
            says = f"no pod of Service {service.meta.key} has {_spelled(subset.labels)}"
            hint = "correct the labels, or deploy the pods"
            yield EMPTY_SUBSET.on(thing, "spec", "subsets", index, "labels", says=says, hint=hint)


def _spelled(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
