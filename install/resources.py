"""The kinds that an installation consists of, and where the API server has their objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kube.source import list_path
from mesh.errors import InvalidInput

Raw = Mapping[str, Any]

_CORE, _APPS, _RBAC = "", "apps", "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API server calls it."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        """Of the object `name`, or of all; in `namespace`, or everywhere."""
        collection = list_path(self.group, self.version, self.plural, namespace if self.namespaced else "")
        return f"{collection}/{name}" if name else collection


NAMESPACE = Resource(_CORE, "v1", "Namespace", "namespaces", False)
POD = Resource(_CORE, "v1", "Pod", "pods")
SECRET = Resource(_CORE, "v1", "Secret", "secrets")
CONFIG_MAP = Resource(_CORE, "v1", "ConfigMap", "configmaps")
SERVICE = Resource(_CORE, "v1", "Service", "services")
DEPLOYMENT = Resource(_APPS, "v1", "Deployment", "deployments")
DAEMON_SET = Resource(_APPS, "v1", "DaemonSet", "daemonsets")
LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")
MUTATING = Resource(_ADMISSION, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", False)
VALIDATING = Resource(_ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", False)
CRD = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)

RESOURCES: tuple[Resource, ...] = (
    CRD,
    NAMESPACE,
    Resource(_CORE, "v1", "ServiceAccount", "serviceaccounts"),
    CONFIG_MAP,
    SECRET,
    Resource(_RBAC, "v1", "ClusterRole", "clusterroles", False),
    Resource(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", False),
    Resource(_RBAC, "v1", "Role", "roles"),
    Resource(_RBAC, "v1", "RoleBinding", "rolebindings"),
    DEPLOYMENT,
    DAEMON_SET,
    SERVICE,
    Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    MUTATING,
    VALIDATING,
)

_BY_KIND = {(resource.group, resource.kind): resource for resource in RESOURCES}


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """Names one object, without its version, which may change."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def resource(self) -> Resource:
        return _BY_KIND[self.group, self.kind]

    @property
    def path(self) -> str:
        return self.resource.path(self.namespace, self.name)

    def line(self) -> str:
        """As it stands in an inventory."""
        return " ".join((self.group or "-", self.kind, self.namespace or "-", self.name))


def reference_of(raw: Raw) -> Reference:
    """InvalidInput for a kind that an installation has none of."""
    group = str(raw["apiVersion"]).rpartition("/")[0]
    resource = _BY_KIND.get((group, raw["kind"]))
    if resource is None:
        raise InvalidInput(f"an installation has no {raw['kind']} of {raw['apiVersion']}")
    metadata = raw["metadata"]
    return Reference(group, raw["kind"], metadata.get("namespace", "") if resource.namespaced else "", metadata["name"])


def parse_reference(line: str) -> Reference | None:
    """The reference that `line()` wrote; None for one of a kind that this version does not know."""
    parts = line.split()
    if len(parts) != 4:
        return None
    group, kind, namespace, name = ("" if part == "-" else part for part in parts)
    return Reference(group, kind, namespace, name) if (group, kind) in _BY_KIND else None
