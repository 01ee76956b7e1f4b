"""Workloads as manifests have them, before any pod is made: what selectors will choose, and who will have a sidecar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mesh.analysis.view import Workload, Workloads, by_namespace
from mesh.annotation_values import parse_truth
from mesh.annotations import INJECT, NAMESPACE_INJECTION, REVISION
from mesh.errors import InvalidInput

_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}
"""Kind -> where in it the pod is."""

Raw = Mapping[str, Any]


def workloads_of_manifests(objects: Iterable[Raw], namespace: str = "default") -> Workloads:
    """The workloads among raw objects; `namespace` is that of objects that name none."""
    everything = tuple(objects)
    homes = {_at(raw, "metadata").get("name"): _labels(raw) for raw in everything if raw.get("kind") == "Namespace"}
    return by_namespace(_workloads(everything, homes, namespace))


def _workloads(objects: Iterable[Raw], homes: Mapping[Any, Raw], namespace: str) -> Iterator[Workload]:
    for raw in objects:
        path = _TEMPLATES.get(str(raw.get("kind")))
        if path is None:
            continue
        metadata, pod = _at(raw, "metadata"), _at(raw, *path)
        home = str(metadata.get("namespace") or namespace)
        labels = {str(key): str(value) for key, value in _labels(pod).items()}
        injected = _injected(labels, _at(pod, "metadata", "annotations"), homes.get(home, {}))
        yield Workload(home, str(metadata.get("name")), labels, injected)


def _injected(labels: Raw, annotations: Raw, home: Raw) -> bool:
    """By what the pod says itself, then by its namespace; the whole rule, which has settings too, is the webhook's."""
    said = labels.get(INJECT, annotations.get(INJECT))
    if said is not None:
        try:
            return parse_truth(str(said))
        except InvalidInput:
            return False
    switch = home.get(NAMESPACE_INJECTION)
    return switch == "enabled" or (switch is None and (REVISION in home or REVISION in labels))


def _labels(raw: Raw) -> Raw:
    return _at(raw, "metadata", "labels")


def _at(raw: Any, *path: str) -> Raw:
    """The mapping at `path`; an empty one where there is none, since manifests may be wrong."""
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, Mapping) else {}
