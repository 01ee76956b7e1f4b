"""Two objects for the same workloads where one counts: the older one, as everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.policies import has_targets, selector_of
from mesh.analysis.view import View
from mesh.istio.base import IstioObject, age

SECOND_OF_NAMESPACE = Code(
    "HDL0404",
    "second-for-the-namespace",
    Severity.ERROR,
    "A second Sidecar, Telemetry, PeerAuthentication or ProxyConfig without a selector in one namespace: the older one "
    "counts, and this one has no effect.",
    "Merge the two, or select workloads by labels.",
    ("IST0111", "IST0160"),
)
SECOND_OF_WORKLOAD = Code(
    "HDL0405",
    "second-for-a-workload",
    Severity.WARNING,
    "Two Sidecars, Telemetries, PeerAuthentications or ProxyConfigs of one namespace select the same workload: the "
    "older one counts for it.",
    "Make the selectors exclude each other, or merge the two.",
    ("IST0110", "IST0159"),
)
CODES = (SECOND_OF_NAMESPACE, SECOND_OF_WORKLOAD)
ONE_COUNTS = ("Sidecar", "Telemetry", "PeerAuthentication", "ProxyConfig")


def no_older_one_counts(view: View, thing: IstioObject[Any]) -> Iterator[Finding]:
    if has_targets(thing):
        return
    older = [
        each
        for each in view.snapshot.of(thing.kind).values()
        if each.namespace == thing.namespace and age(each) < age(thing) and not has_targets(each)
    ]
    path, labels = selector_of(thing)
    for each in sorted(older, key=age):
        _, others = selector_of(each)
        if not labels and not others:
            says = f"{each} is older and is for all of namespace {thing.namespace} too: this one has no effect"
            yield SECOND_OF_NAMESPACE.on(thing, "spec", says=says, hint="merge the two, or add a selector")
            return
        if labels and others:
            both = [one for one in view.chosen_from(thing) if one.matches(labels) and one.matches(others)]
            if both:
                says = f"{each} is older and selects {both[0].namespace}/{both[0].name} too: it counts there"
                hint = "make the selectors exclude each other, or merge the two"
                yield SECOND_OF_WORKLOAD.on(thing, *path, says=says, hint=hint)
                return
