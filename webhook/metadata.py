"""Labels and annotations of an injected pod. Pure.

Source: Istio's injection templates `sidecar` and `gateway`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from mesh.annotations import (
    DEFAULT_CONTAINER,
    DEFAULT_LOGS_CONTAINER,
    OVERRIDES,
    REVISION,
    TLS_MODE_LABEL,
)
from mesh.objects import PROXY_CONTAINER, SIDECAR_STATUS_ANNOTATION
from mesh.workloads import NAME_LABEL, REVISION_LABEL
from webhook.gate import GATE_CONTAINER
from webhook.sidecar import Wanted

Raw = dict[str, Any]

_LONGEST_LABEL = 63


def labels_of(pod: Mapping[str, Any], workload: str) -> dict[str, str]:
    """The pod's labels, and those that every pod of the mesh has."""
    labels = dict(pod["metadata"].get("labels") or {})
    labels.setdefault(TLS_MODE_LABEL, "istio")
    named = labels.get("app.kubernetes.io/name") or labels.get("app")
    labels.setdefault(NAME_LABEL, named or as_label(workload))
    version = labels.get("app.kubernetes.io/version") or labels.get("version")
    labels.setdefault(REVISION_LABEL, version or "latest")
    return labels


def annotations_of(annotations: Mapping[str, str], pod: Mapping[str, Any], wanted: Wanted, own: str) -> dict[str, str]:
    """`annotations` and those that every pod of the mesh has; `own` is the text of `proxy.istio.io/overrides`."""
    kept = {**wanted.config.injector.annotations, **annotations}
    kept[REVISION] = wanted.config.revision
    app = next((c["name"] for c in pod["spec"].get("containers") or () if c["name"] != PROXY_CONTAINER), None)
    if app:
        kept.setdefault(DEFAULT_CONTAINER, app)
        kept.setdefault(DEFAULT_LOGS_CONTAINER, app)
    if own:
        kept[OVERRIDES] = own
    return kept


def status_of(before: Mapping[str, Any], spec: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """`sidecar.istio.io/status`: the names of what `spec` has more than the pod had `before`, and the proxy's."""

    def added(place: str, always: Iterable[str] = ()) -> list[str] | None:
        names = {item["name"] for item in before.get(place) or ()} - set(always)
        return [item["name"] for item in spec.get(place) or () if item["name"] not in names] or None

    proxy = (PROXY_CONTAINER, "istio-init", GATE_CONTAINER)
    status: Raw = {
        "initContainers": added("initContainers", proxy),
        "containers": added("containers", proxy),
        "volumes": added("volumes", (v["name"] for v in spec["volumes"] if v["name"].startswith("istio"))),
        "imagePullSecrets": added("imagePullSecrets"),
        "revision": wanted.config.revision,
    }
    if taken := wanted.config.chosen.versions():
        status["proxyConfigs"] = taken
    return {SIDECAR_STATUS_ANNOTATION: orjson.dumps(status).decode()}


def as_label(name: str) -> str:
    """`name` as far as it fits into a label."""
    return name[:_LONGEST_LABEL].rstrip("-._") or "unknown"
