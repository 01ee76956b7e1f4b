"""Telemetry that reports to nobody."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.policies import has_targets, selector_of
from mesh.analysis.view import View
from mesh.istio.base import IstioObject
from mesh.istio.telemetry import Telemetry

TRACES_NOWHERE = Code(
    "HDL0409",
    "traces-to-nobody",
    Severity.WARNING,
    "A Telemetry says how requests are traced, and neither it nor one for more workloads nor meshConfig names a "
    "provider: nothing is traced.",
    "Name one of meshConfig's `extensionProviders`, or set `defaultProviders.tracing`.",
    ("IST0157",),
)
CODES = (TRACES_NOWHERE,)


def traces_have_a_provider(view: View, thing: IstioObject[Telemetry]) -> Iterator[Finding]:
    """Access logs and metrics have a provider of their own, which is built in."""
    wider = (
        each
        for each in view.snapshot.of("Telemetry").values()
        if each.namespace in (thing.namespace, view.snapshot.settings.root_namespace)
        and not selector_of(each)[1]
        and not has_targets(each)
    )
    if view.snapshot.settings.default_providers.tracing or not view.complete:
        return
    if any(entry.providers for each in (thing, *wider) for entry in each.spec.tracing):
        return
    for index, entry in enumerate(thing.spec.tracing):
        if not entry.disable_span_reporting:
            says = "neither this nor meshConfig's defaultProviders.tracing says where traces go: nothing is traced"
            hint = "name one of meshConfig's extensionProviders"
            yield TRACES_NOWHERE.on(thing, "spec", "tracing", index, "providers", says=says, hint=hint)
