"""`k8s:` of a component, laid over its objects. Pure.

What is said replaces what the files say, field by field; env and volumes are merged by name. `overlays` come last.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from install.kubernetes_resources import KubernetesResources, Overlay
from install.merging import by_key, overlaid
from install.paths import assign, parse_path, remove
from mesh.errors import InvalidInput

WORKLOADS = ("Deployment", "DaemonSet")

Raw = dict[str, Any]


def with_settings(objects: Sequence[Raw], settings: KubernetesResources) -> list[Raw]:
    """The objects of one workload (Deployment or DaemonSet, Service, PodDisruptionBudget) as `settings` want them."""
    changed = [_one(copy.deepcopy(raw), settings) for raw in objects]
    if settings.hpa_spec is not None:
        changed += [_autoscaler(raw, settings) for raw in changed if raw["kind"] == "Deployment"]
    return changed


def with_overlays(objects: Sequence[Raw], overlays: Sequence[Overlay]) -> list[Raw]:
    """The objects with each overlay's patches. InvalidInput when an overlay names none of them."""
    changed = [copy.deepcopy(raw) for raw in objects]
    for overlay in overlays:
        found = [raw for raw in changed if raw["kind"] == overlay.kind and raw["metadata"]["name"] == overlay.name]
        if not found:
            known = ", ".join(f"{raw['kind']} {raw['metadata']['name']}" for raw in changed)
            raise InvalidInput(f"the overlay names {overlay.kind} {overlay.name}, and there is none", hint=known)
        for patch in overlay.patches:
            steps = parse_path(patch.path)
            about = f"overlay of {overlay.kind} {overlay.name}, {patch.path}"
            if patch.value is None:
                remove(found[0], steps, about)
            else:
                assign(found[0], steps, _plain(patch.value), about)
    return changed


def _one(raw: Raw, settings: KubernetesResources) -> Raw:
    said = settings.model_fields_set
    if raw["kind"] in WORKLOADS:
        _workload(raw, settings, said)
    elif raw["kind"] == "Service":
        if settings.service is not None:
            raw["spec"] = overlaid(raw["spec"], _plain(settings.service))
        if settings.service_annotations:
            _annotate(raw["metadata"], settings.service_annotations)
    elif raw["kind"] == "PodDisruptionBudget" and settings.pod_disruption_budget is not None:
        raw["spec"] = {"selector": raw["spec"]["selector"], **_plain(settings.pod_disruption_budget)}
    return raw


def _workload(raw: Raw, settings: KubernetesResources, said: set[str]) -> None:
    spec = raw["spec"]
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    if settings.replica_count is not None and raw["kind"] == "Deployment":
        spec["replicas"] = settings.replica_count
    if settings.hpa_spec is not None:
        spec.pop("replicas", None)  # the autoscaler's from now on
    if settings.strategy is not None:
        field = "strategy" if raw["kind"] == "Deployment" else "updateStrategy"
        spec[field] = overlaid(spec.get(field, {}), _plain(settings.strategy))
    if settings.pod_annotations:
        _annotate(spec["template"]["metadata"], settings.pod_annotations)
    for field, alias in (("affinity", "affinity"), ("node_selector", "nodeSelector"), ("tolerations", "tolerations")):
        if field in said:
            pod[alias] = _plain(getattr(settings, field))
    if settings.priority_class_name:
        pod["priorityClassName"] = settings.priority_class_name
    if settings.security_context is not None:
        pod["securityContext"] = overlaid(pod.get("securityContext", {}), _plain(settings.security_context))
    if settings.volumes:
        pod["volumes"] = by_key(pod.get("volumes", []), _plain(settings.volumes), ("name",))
    if settings.volume_mounts:
        container["volumeMounts"] = by_key(
            container.get("volumeMounts", []), _plain(settings.volume_mounts), ("mountPath",)
        )
    if settings.env:
        # A variable of one's own replaces the whole entry: value and valueFrom exclude each other.
        own = {variable["name"]: variable for variable in _plain(settings.env)}
        before = container.get("env", [])
        container["env"] = [own.pop(each["name"], each) for each in before] + list(own.values())
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    if settings.readiness_probe is not None:
        container["readinessProbe"] = _plain(settings.readiness_probe)
    if settings.resources is not None:
        container["resources"] = overlaid(container.get("resources", {}), settings.resources.manifest())


def _autoscaler(deployment: Raw, settings: KubernetesResources) -> Raw:
    meta = deployment["metadata"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"]}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "labels": dict(meta.get("labels") or {})},
        "spec": {**_plain(settings.hpa_spec), "scaleTargetRef": target},
    }


def _annotate(metadata: Raw, annotations: Mapping[str, str]) -> None:
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}


def _plain(value: Any) -> Any:
    """Frozen maps and tuples as dicts and lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
