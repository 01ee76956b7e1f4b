"""Injection into manifests: the pod of every kind of object that has one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.problems import FieldProblem, ObjectErrors
from webhook.config import InjectionConfig, for_pod
from webhook.decision import Decision, decide
from webhook.gate import for_namespace
from webhook.inject import advice, inject
from webhook.shape import check_pod

Raw = dict[str, Any]

_TEMPLATE = ("spec", "template")
POD_AT: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("v1", "Pod"): (),
    ("v1", "ReplicationController"): _TEMPLATE,
    ("apps/v1", "Deployment"): _TEMPLATE,
    ("apps/v1", "ReplicaSet"): _TEMPLATE,
    ("apps/v1", "StatefulSet"): _TEMPLATE,
    ("apps/v1", "DaemonSet"): _TEMPLATE,
    ("batch/v1", "Job"): _TEMPLATE,
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
"""Where the pod is, by apiVersion and kind."""


@dataclass(frozen=True, slots=True)
class Injected:
    """`object` is the given one, or a new one with the sidecar in its pod. `about` names it; `advice` are warnings."""

    object: Raw
    about: str
    decision: Decision
    advice: tuple[str, ...] = ()


def inject_object(
    raw: Raw, namespace: str, namespace_labels: Mapping[str, str], config: InjectionConfig
) -> Injected | None:
    """The object with its pod injected, or left alone, and why; None when it has no pod. ObjectErrors names it."""
    way = POD_AT.get((raw["apiVersion"], raw["kind"]))
    if way is None:
        return None
    name = raw["metadata"].get("name") or f"{raw['metadata'].get('generateName', '')}*"
    about = f"{raw['kind']} {namespace}/{name}"
    template = _at(raw, way, about)
    # A template may leave metadata out; a pod may not.
    pod = check_pod({**template, "metadata": template.get("metadata") or {}}, about)
    decision = decide(pod, namespace, namespace_labels, config)
    if not decision.inject:
        return Injected(raw, about, decision)
    workload = "" if not way else str(name)
    config = for_namespace(config, namespace, namespace_labels)
    config = for_pod(config, namespace, pod["metadata"].get("labels") or {})
    after = _replaced(raw, way, inject(pod, config, about, workload))
    return Injected(after, about, decision, tuple(advice(pod, config)))


def _at(raw: Raw, way: tuple[str, ...], about: str) -> Raw:
    value: Any = raw
    for index, step in enumerate(way):
        value = value.get(step)
        if not isinstance(value, dict):
            raise ObjectErrors(about, [FieldProblem(way[: index + 1], "must be an object with the pod's template")])
    found: Raw = value
    return found


def _replaced(raw: Raw, way: tuple[str, ...], pod: Raw) -> Raw:
    if not way:
        return pod
    return {**raw, way[0]: _replaced(raw[way[0]], way[1:], pod)}
