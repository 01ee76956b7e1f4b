"""EnvoyFilters whose place follows from nothing."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.view import View
from mesh.istio.base import IstioObject
from mesh.istio.envoy_filter import EnvoyFilter, Operation

NO_ORDER = Code(
    "HDL0408",
    "filter-without-order",
    Severity.WARNING,
    "An EnvoyFilter changes, or puts something beside, what another one may add, and has no priority: whether it is "
    "applied depends on their ages and names.",
    "Set `spec.priority`, or use INSERT_FIRST or ADD.",
    ("IST0151", "IST0155"),
)
CODES = (NO_ORDER,)
_RELATIVE = (Operation.INSERT_BEFORE, Operation.INSERT_AFTER, Operation.REPLACE, Operation.MERGE, Operation.REMOVE)


def patches_have_an_order(view: View, thing: IstioObject[EnvoyFilter]) -> Iterator[Finding]:
    if thing.spec.priority:
        return
    for at, patch in enumerate(thing.spec.config_patches):
        if patch.patch is not None and patch.patch.operation in _RELATIVE:
            says = f"{patch.patch.operation.value} depends on what is there already, and the filter has no priority"
            path = ("spec", "configPatches", at, "patch", "operation")
            yield NO_ORDER.on(thing, *path, says=says, hint="set spec.priority, or use INSERT_FIRST or ADD")
