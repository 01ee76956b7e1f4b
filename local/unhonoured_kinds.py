"""Which fields of objects other than pods the embedded engine does not honour, for a warning. Pure.

As in `local.support`, which knows pods and services: the tables say what IS honoured, whatever else is said is named.
Source: Kubernetes API reference (apps/v1, batch/v1, core/v1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from local.support import service_fields, unhonoured
from mesh.problems import Path, spell

Raw = Mapping[str, Any]


def _fields(names: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(name.split(".")) for name in names.split())


_SPECS: Mapping[str, frozenset[tuple[str, ...]]] = {
    "Deployment": _fields("replicas selector template strategy.type"),
    "ReplicaSet": _fields("replicas selector template"),
    "Job": _fields("completions parallelism backoffLimit selector template"),
    "Namespace": _fields("finalizers"),
}
_WITHOUT_SPEC: Mapping[str, frozenset[tuple[str, ...]]] = {
    "ConfigMap": _fields("data binaryData"),
    "Secret": _fields("data stringData type"),
    "ServiceAccount": _fields("automountServiceAccountToken"),
    "EndpointSlice": _fields("addressType endpoints ports"),
}
_ENVELOPE = frozenset(("apiVersion", "kind", "metadata", "spec", "status"))
_TEMPLATED = frozenset(("Deployment", "ReplicaSet", "Job"))

# Values that ask for what happens anyway, by kind and field.
_AS_IT_IS: Mapping[tuple[str, str], tuple[Any, ...]] = {
    ("Deployment", "spec.paused"): (False,),
    ("Deployment", "spec.minReadySeconds"): (0,),
    ("ReplicaSet", "spec.minReadySeconds"): (0,),
    ("Job", "spec.suspend"): (False,),
    ("Job", "spec.completionMode"): ("NonIndexed",),
    ("Job", "spec.manualSelector"): (False,),
    ("ConfigMap", "immutable"): (False,),
    ("Secret", "immutable"): (False,),
    ("Service", "spec.externalTrafficPolicy"): ("Cluster",),
    ("Service", "spec.allocateLoadBalancerNodePorts"): (False,),
}


def kind_fields(kind: str, raw: Raw) -> list[tuple[Path, str]]:
    """`(path, as it is spelled)` of each field in use that has no effect here, in the order of the manifest.

    A pod template's own fields are not among them: `template_warnings` says those.
    """
    found: list[tuple[Path, str]] = [
        (path, spell(path)) for path in _unknown(kind, raw) if not _asks_nothing(kind, spell(path), _value(raw, path))
    ]
    if kind == "Service":
        places = [place for place in service_fields(raw) if not _asks_nothing(kind, place, _value(raw, _steps(place)))]
        found += [(_steps(place), place) for place in places]
    return found


def template_warnings(kind: str, where: str, raw: Raw) -> list[str]:
    """What `local.support` says of the pod, or of the pod template, in the object `where`."""
    if kind == "Pod":
        return unhonoured(where, raw)
    return unhonoured(where, raw["spec"]["template"]) if kind in _TEMPLATED else []


def _unknown(kind: str, raw: Raw) -> Iterator[Path]:
    for name in raw:
        if name not in _ENVELOPE and (name,) not in _WITHOUT_SPEC.get(kind, ()):
            yield (name,)
    if kind in _SPECS:
        yield from _beyond(raw.get("spec") or {}, _SPECS[kind], ())


def _beyond(value: Raw, known: frozenset[tuple[str, ...]], above: tuple[str, ...]) -> Iterator[Path]:
    for name, below in value.items():
        here = (*above, name)
        if here in known:
            continue
        if isinstance(below, Mapping) and any(path[: len(here)] == here for path in known):
            yield from _beyond(below, known, here)
        else:
            yield ("spec", *here)


def _asks_nothing(kind: str, place: str, value: Any) -> bool:
    return value in (None, "", [], {}) or value in _AS_IT_IS.get((kind, place), ())


def _steps(place: str) -> Path:
    """`spec.ports[].name` -> `("spec", "ports")`: as far as it names one place."""
    return tuple(place.partition("[]")[0].split("."))


def _value(raw: Any, path: Path) -> Any:
    for step in path:
        raw = raw.get(step) if isinstance(raw, Mapping) else None
    return raw
