"""Everything that discovery knows at one moment: an immutable value, indexed the way plans ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from mesh.identity import CONTROL_NAMESPACE
from mesh.objects import (
    EndpointSlice,
    Key,
    Namespace,
    Node,
    Pod,
    Secret,
    Service,
    parse_endpoint_slice,
    parse_namespace,
    parse_node,
    parse_pod,
    parse_secret,
    parse_service,
)
from mesh.settings import MeshSettings

CORE: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Any]]] = {
    "Namespace": ("namespaces", parse_namespace),
    "Node": ("nodes", parse_node),
    "Pod": ("pods", parse_pod),
    "Service": ("services", parse_service),
    "EndpointSlice": ("slices", parse_endpoint_slice),
    "Secret": ("secrets", parse_secret),
}
"""Kubernetes' kinds in a snapshot: kind -> field of Snapshot, parser."""
BY_NAME_ALONE = ("Namespace", "Node")
"""Those that a snapshot has by name, since they are in no namespace."""

_EMPTY: Mapping[Any, Any] = MappingProxyType({})
_SETTINGS = Key(CONTROL_NAMESPACE, "istio")


def _nothing() -> Mapping[Any, Any]:
    """The one empty mapping: what is absent stays the same object from snapshot to snapshot."""
    return _EMPTY


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One consistent view. `istio` maps a kind (`VirtualService` ...) to its objects (`mesh.istio.base.IstioObject`).

    `resource_version` is the API server's version of the newest change in it (0 before the first). `settings_at` is the
    ConfigMap that the settings are in, or would be.
    """

    settings: MeshSettings = field(default_factory=MeshSettings)
    namespaces: Mapping[str, Namespace] = field(default_factory=_nothing)
    nodes: Mapping[str, Node] = field(default_factory=_nothing)
    pods: Mapping[Key, Pod] = field(default_factory=_nothing)
    services: Mapping[Key, Service] = field(default_factory=_nothing)
    slices: Mapping[Key, EndpointSlice] = field(default_factory=_nothing)
    secrets: Mapping[Key, Secret] = field(default_factory=_nothing)
    istio: Mapping[str, Mapping[Key, Any]] = field(default_factory=_nothing)
    resource_version: int = 0
    settings_at: Key = _SETTINGS

    def of(self, kind: str) -> Mapping[Key, Any]:
        """The Istio objects of `kind`, by key."""
        return self.istio.get(kind, _EMPTY)

    def replacing(self, **changes: Any) -> Snapshot:
        return replace(self, **changes)
