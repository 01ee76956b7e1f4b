"""Ingress and egress gateways: the objects of each that is enabled. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from install import files
from install.merging import overlaid
from install.names import in_namespace
from install.operator import Gateway
from install.overlay import with_overlays, with_settings

Raw = dict[str, Any]


def gateway_objects(side: str, gateways: Sequence[Gateway], home: str, pull_policy: str = "") -> list[Raw]:
    """`side` is `ingress` or `egress`; `home` is the control plane's namespace. A gateway of another name has labels of
    its own."""
    objects: list[Raw] = []
    for gateway in gateways:
        if gateway.enabled is not False:  # as in istioctl, one that is in the list is meant
            objects += _one(side, gateway, home, pull_policy)
    return objects


def _one(side: str, gateway: Gateway, home: str, pull_policy: str) -> list[Raw]:
    original = f"istio-{side}gateway"
    labels = {"app": gateway.name, "istio": gateway.name.removeprefix("istio-"), **gateway.label}
    objects = []
    for raw in files.folder(f"gateways/{side}"):
        raw = in_namespace(copy.deepcopy(raw), home)
        meta = raw["metadata"]
        meta["name"] = meta["name"].replace(original, gateway.name)
        if "roleRef" in raw:
            raw["roleRef"]["name"] = meta["name"]
        if gateway.namespace:
            meta["namespace"] = gateway.namespace
        meta["labels"] = overlaid(meta["labels"], labels)
        _relabel(raw.get("spec", {}), labels)
        if raw["kind"] == "Deployment":
            pod = raw["spec"]["template"]
            pod["metadata"]["labels"] |= labels
            pod["spec"]["serviceAccountName"] = f"{gateway.name}-service-account"
            if pull_policy:
                pod["spec"]["containers"][0]["imagePullPolicy"] = pull_policy
        objects.append(raw)
    return with_overlays(with_settings(objects, gateway.k8s), gateway.k8s.overlays)


def _relabel(value: Any, labels: dict[str, str]) -> None:
    """Selectors choose by the same labels."""
    if isinstance(value, list):
        for item in value:
            _relabel(item, labels)
        return
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        chooses = key == "matchLabels" or (key == "selector" and isinstance(item, dict) and "matchLabels" not in item)
        if chooses and "app" in item:
            item |= labels
        _relabel(item, labels)
