"""The pods that live, from the ca's watch of all pods."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ca.rotation.members import Living, living_of
from kube.source import Changed, Event, Listed


class Population:
    """Feed it with events; `living` is those of the mesh, and None before the first list."""

    def __init__(self, control: str) -> None:
        """`control`: the control plane's namespace."""
        self._control = control
        self._lock = threading.Lock()
        self._pods: dict[tuple[str, str], Living] | None = None

    def take(self, event: Event) -> None:
        """One event of the watch."""
        with self._lock:
            match event:
                case Listed(objects=objects):
                    found = {_key(raw): self._counted(raw) for raw in objects}
                    self._pods = {key: pod for key, pod in found.items() if pod is not None}
                case Changed(object=raw, deleted=deleted) if self._pods is not None:
                    pod = None if deleted else self._counted(raw)
                    if pod is None:
                        self._pods.pop(_key(raw), None)
                    else:
                        self._pods[_key(raw)] = pod

    def living(self) -> tuple[Living, ...] | None:
        """Pods with a sidecar, and those of the control plane."""
        with self._lock:
            return None if self._pods is None else tuple(self._pods.values())

    def _counted(self, raw: Mapping[str, Any]) -> Living | None:
        pod = living_of(raw)
        if pod is None or pod.sidecar or pod.is_ca(self._control) or pod.is_component(self._control):
            return pod
        return None


def _key(pod: Mapping[str, Any]) -> tuple[str, str]:
    meta = pod.get("metadata") or {}
    return meta.get("namespace", ""), meta.get("name", "")
