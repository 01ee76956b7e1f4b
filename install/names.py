"""Namespace and revision: what the objects of `manifests/` are called in this installation. Pure.

As in Istio, a revision other than `default` adds `-<revision>` to the names of its control plane and has a webhook
that is asked for only by `istio.io/rev`. Service accounts stay what they are, but for the webhook's: they are the
identities that proxies check, and the roots that they come from are the mesh's, not a revision's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from install.operator import DEFAULT_REVISION
from mesh.identity import CONTROL_NAMESPACE

REVISION_LABEL = "istio.io/rev"
INJECTOR = "heddle-sidecar-injector"
MESH_CONFIG = "istio"
CLUSTER_SCOPED_RIGHTS = ("ClusterRole", "ClusterRoleBinding")
RIGHTS = (*CLUSTER_SCOPED_RIGHTS, "Role", "RoleBinding")
INJECTOR_CONFIG = "istio-sidecar-injector"
_OF_A_REVISION = (("ServiceAccount", "heddle-webhook"), ("ConfigMap", MESH_CONFIG), ("ConfigMap", INJECTOR_CONFIG))
_WORKLOADS = ("Deployment", "DaemonSet", "Service", "PodDisruptionBudget")

Raw = dict[str, Any]

_IN_TEXT = re.compile(rf"(?<![\w-]){re.escape(CONTROL_NAMESPACE)}(?![\w-])")
_SERVICE_ADDRESS = re.compile(r"\bheddle-(ca|discovery|webhook)(?=\.)")
_NAMED = re.compile(r"^heddle-(ca|discovery|webhook)$")


def in_namespace(raw: Raw, namespace: str) -> Raw:
    """The object with the control plane's namespace called `namespace`, wherever it is mentioned."""
    if namespace == CONTROL_NAMESPACE:
        return raw
    moved: Raw = _texts(raw, lambda text: _IN_TEXT.sub(namespace, text))
    return moved


def with_revision(raw: Raw, revision: str) -> Raw:
    """The object as revision `revision` of the control plane has it."""
    if revision == DEFAULT_REVISION:
        return raw
    kind, name = raw["kind"], raw["metadata"]["name"]
    if kind == "CustomResourceDefinition":
        return raw
    changed: Raw = _texts(raw, lambda text: _SERVICE_ADDRESS.sub(rf"heddle-\1-{revision}", text))
    changed = _labels(changed, revision)
    if kind in _WORKLOADS and _NAMED.match(name):
        changed["metadata"]["name"] = f"{name}-{revision}"
    elif kind in RIGHTS and _NAMED.match(name):
        _rights(changed, revision)
    elif (kind, name) in _OF_A_REVISION:
        changed["metadata"]["name"] = f"{name}-{revision}"
    if kind == "Deployment" and name == "heddle-webhook":
        changed["spec"]["template"]["spec"]["serviceAccountName"] = f"{name}-{revision}"
    if kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        changed = of_revision(changed, revision, f"{name}-{revision}")
    return changed


def is_of_revision(raw: Raw) -> bool:
    """Whether every revision has an object of its own here; otherwise all use the one."""
    return bool(with_revision(raw, "x")["metadata"]["name"] != raw["metadata"]["name"])


def of_revision(raw: Raw, revision: str, name: str) -> Raw:
    """A webhook configuration that sends what is `revision`'s to its webhook; only entries that name a revision."""
    entries = []
    for entry in raw["webhooks"]:
        if not entry["name"].startswith("rev."):
            continue
        entries.append({**entry, "clientConfig": {"service": {**entry["clientConfig"]["service"]}}})
        entries[-1]["clientConfig"]["service"]["name"] = service_name("webhook", revision)
    return {**raw, "metadata": {**raw["metadata"], "name": name}, "webhooks": entries}


def service_name(component: str, revision: str) -> str:
    """`heddle-webhook`, or `heddle-webhook-<revision>`."""
    return f"heddle-{component}" if revision == DEFAULT_REVISION else f"heddle-{component}-{revision}"


def _rights(raw: Raw, revision: str) -> None:
    """Roles of a revision are its own: two versions may need different ones. Whom they are given to changes only for
    the webhook."""
    raw["metadata"]["name"] += f"-{revision}"
    if "roleRef" in raw:
        raw["roleRef"]["name"] += f"-{revision}"
    for subject in raw.get("subjects") or ():
        if subject["name"] == "heddle-webhook":
            subject["name"] += f"-{revision}"
    for rule in raw.get("rules") or ():
        if "resourceNames" in rule:
            rule["resourceNames"] = [
                f"{name}-{revision}" if name in (INJECTOR, MESH_CONFIG, INJECTOR_CONFIG) else name
                for name in rule["resourceNames"]
            ]


def _labels(value: Any, revision: str) -> Any:
    """Labels, selectors and options that name the revision."""
    if isinstance(value, list):
        return [_labels(item, revision) for item in value]
    if not isinstance(value, dict):
        return f"--revision={revision}" if value == f"--revision={DEFAULT_REVISION}" else value
    if value.get("key") == REVISION_LABEL and "values" in value:
        return {**value, "values": [revision]}
    return {
        key: revision if key == REVISION_LABEL and item == DEFAULT_REVISION else _labels(item, revision)
        for key, item in value.items()
    }


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _texts(item, change) for key, item in value.items()}
    return value
