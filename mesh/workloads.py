"""What telemetry calls a workload: the labels that Istio's metrics have for either end of a request. Pure.

Sources: https://istio.io/latest/docs/reference/config/metrics/, https://istio.io/latest/docs/reference/config/labels/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAME_LABEL = "service.istio.io/canonical-name"
REVISION_LABEL = "service.istio.io/canonical-revision"
PEER_HEADER = "x-heddle-peer"
"""The request header by which a sidecar tells that of another who asks; never seen by an app, nor outside the mesh."""
PEER_METADATA = "HEDDLE_PEER"
"""Where Envoy's node metadata has the proxy's own workload."""
METADATA = "heddle"
"""The namespace of metadata that endpoints (`workload`) and clusters (`service`) have for telemetry."""
LABELS = ("workload", "workload_namespace", "canonical_service", "canonical_revision", "app", "version")
"""Of metrics, after `source_` or `destination_`, in the order in which a workload is packed."""
TRACED_AS = {
    "istio.namespace": "HEDDLE_NAMESPACE",
    "istio.canonical_service": "HEDDLE_CANONICAL_SERVICE",
    "istio.canonical_revision": "HEDDLE_CANONICAL_REVISION",
}
"""Istio's tags of spans that are a workload's own, and the variables of its Envoy's environment that they come from: so
that listeners are nobody's own."""
SEPARATOR = "~"
"""Between parts; no name and no label of Kubernetes' has it."""

_CRON_SUFFIX = re.compile(r"-\d{8,10}\Z")


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """One end of a request. `app` and `version` are the pod's labels of these names, empty without them."""

    name: str
    namespace: str
    service: str
    revision: str
    app: str = ""
    version: str = ""

    @property
    def packed(self) -> str:
        """As one text, for headers and metadata."""
        parts = (self.name, self.namespace, self.service, self.revision, self.app, self.version)
        return SEPARATOR.join(parts)


def workload_of(name: str, namespace: str, labels: Mapping[str, str]) -> Workload:
    """The workload of a pod with `labels`, whose owner is called `name`."""
    app, version = labels.get("app", ""), labels.get("version", "")
    return Workload(
        name=name,
        namespace=namespace,
        service=labels.get(NAME_LABEL) or labels.get("app.kubernetes.io/name") or app or name,
        revision=labels.get(REVISION_LABEL) or labels.get("app.kubernetes.io/version") or version or "latest",
        app=app,
        version=version,
    )


def workload_name(pod: Mapping[str, Any]) -> str:
    """The name of what a person wrote: the Deployment behind a ReplicaSet, the CronJob behind a Job."""
    meta = pod.get("metadata") or {}
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return str(meta.get("name") or meta.get("generateName") or "")
    name = str(owner.get("name", ""))
    if owner.get("kind") == "ReplicaSet":
        return name.removesuffix("-" + str((meta.get("labels") or {}).get("pod-template-hash", "")))
    return _CRON_SUFFIX.sub("", name) if owner.get("kind") == "Job" else name
