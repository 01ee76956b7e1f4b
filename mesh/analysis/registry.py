"""The one table of checks. `heddle analyze`, the admission webhook and docs/analysis.md go by it.

A new check is a generator in a module of this package, `(view, thing) -> findings`, one line in `CHECKS`, its codes in
the module's `CODES`, and a file of its number in tests/mesh/analysis/cases, with an object for which it fires and one
for which it does not. Numbers by theme: 00 the object itself, 01 references, 02 routes, 03 ports, 04 policies, 05
injection and workloads, 06 certificates, 07 the control plane. `python -m mesh.analysis.page` writes docs/analysis.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.analysis import (
    certificates,
    filters,
    gateways,
    injection,
    mutual_tls,
    objects,
    policies,
    ports,
    references,
    rivals,
    routing,
    sidecars,
    telemetry,
)
from mesh.analysis.model import Code, Finding
from mesh.analysis.view import View
from mesh.istio.base import IstioObject

Run = Callable[[View, Any], Iterable[Finding]]

SUPPRESS = "galley.istio.io/analyze-suppress"
"""Annotation: codes (Heddle's or istioctl's) that are not reported on the object, with commas between, or `*`."""


@dataclass(frozen=True, slots=True)
class Check:
    """`run` is called with each object of each of `kinds`.

    `at_admission`: whether it is asked when one object is admitted. It then sees every kind of mesh/kinds.py that the
    webhook watches; of pods only their metadata.
    """

    kinds: tuple[str, ...]
    run: Run
    at_admission: bool = True


CHECKS: tuple[Check, ...] = (
    Check(("VirtualService",), references.gateways_are_there),
    Check(("VirtualService",), references.destinations_are_there),
    Check(("Gateway",), references.gateway_is_served),
    Check(("DestinationRule",), references.rule_has_a_host),
    Check(("DestinationRule",), references.subsets_have_pods),
    Check(("VirtualService",), routing.host_is_routed_once),
    Check(("VirtualService",), routing.rules_are_reached),
    Check(("VirtualService",), routing.hosts_are_at_the_gateway),
    Check(("VirtualService",), routing.subsets_are_for_gateways_too),
    Check(("VirtualService",), ports.destination_ports_exist),
    Check(("VirtualService",), ports.http_rules_meet_http),
    Check(("Service",), ports.ports_say_their_protocol),
    Check(policies.SELECTING, policies.selector_chooses),
    Check(("Telemetry",), policies.targets_have_pods),
    Check(("AuthorizationPolicy",), policies.lets_something_through),
    Check(("PeerAuthentication",), policies.strict_leaves_nobody_out),
    Check(("Gateway",), gateways.credentials_are_there, at_admission=False),
    Check(("Gateway",), gateways.ports_are_on_the_service),
    Check(("Gateway",), gateways.hosts_are_at_one_gateway),
    Check(("Gateway",), gateways.certificates_are_of_one_server),
    Check(("Service",), ports.pods_ports_have_one_protocol),
    Check(("Service",), ports.external_names_are_http),
    Check(("RequestAuthentication",), ports.tokens_come_by_http),
    Check(rivals.ONE_COUNTS, rivals.no_older_one_counts),
    Check(("DestinationRule",), mutual_tls.tls_fits_the_servers),
    Check(("DestinationRule",), mutual_tls.servers_are_verified),
    Check(("Gateway",), certificates.certificates_hold, at_admission=False),
    Check(("Telemetry",), telemetry.traces_have_a_provider, at_admission=False),
    Check(("EnvoyFilter",), filters.patches_have_an_order),
    Check(("ServiceEntry",), ports.connections_have_an_address),
    Check(("Namespace",), injection.namespace_says_what_it_wants, at_admission=False),
    Check(("Pod",), injection.pod_has_its_sidecar, at_admission=False),
    Check(("Pod",), injection.annotations_are_understood, at_admission=False),
    Check(("Pod",), sidecars.sidecar_is_as_new_pods_get_it, at_admission=False),
    Check(("Pod",), sidecars.app_is_intercepted, at_admission=False),
    Check(("Pod",), sidecars.image_is_filled_in, at_admission=False),
    Check(("Namespace", "Service"), injection.annotations_are_in_their_place, at_admission=False),
)

THEMES: tuple[tuple[str, tuple[Code, ...]], ...] = (
    ("The object itself", objects.CODES),
    ("References", (*references.CODES, *gateways.REFERENCES)),
    ("Routes", (*routing.CODES, *gateways.ROUTES, *routing.AFTER_GATEWAYS)),
    ("Ports", ports.CODES),
    ("Policies", (*policies.CODES, *rivals.CODES, *mutual_tls.CODES, *filters.CODES, *telemetry.CODES)),
    ("Injection and workloads", (*injection.CODES, *sidecars.CODES)),
    ("Certificates", certificates.CODES),
)
"""For the page of codes, in its order."""
CODES: Mapping[str, Code] = {code.number: code for _, codes in THEMES for code in codes}


def examine(view: View, thing: Any, *, at_admission: bool = False) -> Iterator[Finding]:
    """What is doubtful about `thing`, an object of `view`; without what its annotation suppresses."""
    kind = thing.kind if isinstance(thing, IstioObject) else type(thing).__name__
    silenced = suppressed(thing.annotations if isinstance(thing, IstioObject) else thing.meta.annotations)
    for check in CHECKS:
        if kind in check.kinds and (check.at_admission or not at_admission):
            yield from (each for each in check.run(view, thing) if not silenced(each.code))


def analyse(view: View) -> Iterator[Finding]:
    """What is doubtful about any object of `view`."""
    snapshot = view.snapshot
    core = (*snapshot.namespaces.values(), *snapshot.services.values(), *snapshot.pods.values())
    istio = (thing for things in snapshot.istio.values() for thing in things.values())
    for thing in (*core, *istio):
        yield from examine(view, thing)


def suppressed(annotations: Mapping[str, str]) -> Callable[[Code], bool]:
    """Whether a code is one that the object's annotation suppresses."""
    said = frozenset(word.strip() for word in annotations.get(SUPPRESS, "").split(","))
    return lambda code: "*" in said or bool(said.intersection((code.number, *code.istio)))
