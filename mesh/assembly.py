"""A Snapshot from raw objects, one after the other: of files, or of a watch. Pure.

Discovery has its own (discovery/snapshots.py), which keeps the last good version of an object and remembers what is
wrong with it; here an object that cannot be read is left out, and whoever puts it in is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mesh.kinds import find_kind, parse_with_warnings
from mesh.objects import Key, parse_meta
from mesh.problems import FieldProblem
from mesh.settings import MeshSettings
from mesh.snapshot import BY_NAME_ALONE, CORE, Snapshot


class Assembly:
    """`build` gives the Snapshot as of now: the mapping of a kind that did not change is the one of before."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Key, Any]] = {}
        self._changed: set[str] = set()
        self._snapshot = Snapshot()

    def put(self, kind: str, raw: Mapping[str, Any]) -> tuple[FieldProblem, ...]:
        """Add or replace an object; its warnings. ObjectErrors for one that is wrong, which is then out."""
        key = parse_meta(raw).key
        self.drop(kind, key)
        typed, warnings = _typed(kind, raw)
        self._objects.setdefault(kind, {})[key] = typed
        self._changed.add(kind)
        return warnings

    def get(self, kind: str, key: Key) -> Any:
        """The typed object; None where none was put, or it was wrong."""
        return self._objects.get(kind, {}).get(key)

    def drop(self, kind: str, key: Key) -> None:
        if self._objects.get(kind, {}).pop(key, None) is not None:
            self._changed.add(kind)

    def clear(self, kind: str) -> None:
        """As if no object of `kind` had been put."""
        if self._objects.pop(kind, None):
            self._changed.add(kind)

    def settings(self, settings: MeshSettings) -> None:
        if settings is not self._snapshot.settings:
            self._snapshot = self._snapshot.replacing(settings=settings)

    def build(self) -> Snapshot:
        changes: dict[str, Any] = {}
        istio = dict(self._snapshot.istio)
        for kind in self._changed:
            objects = self._objects.get(kind, {})
            if kind not in CORE:
                istio[kind] = MappingProxyType(dict(objects))
            elif kind in BY_NAME_ALONE:
                changes[CORE[kind][0]] = MappingProxyType({key.name: value for key, value in objects.items()})
            else:
                changes[CORE[kind][0]] = MappingProxyType(dict(objects))
        if self._changed:
            self._snapshot = self._snapshot.replacing(**changes, istio=MappingProxyType(istio))
            self._changed.clear()
        return self._snapshot


def _typed(kind: str, raw: Mapping[str, Any]) -> tuple[Any, tuple[FieldProblem, ...]]:
    if kind in CORE:
        return CORE[kind][1](raw), ()
    return parse_with_warnings(raw)


def snapshot_of(objects: Iterable[Mapping[str, Any]], settings: MeshSettings | None = None) -> Snapshot:
    """Of whole objects, as manifests have them; those of kinds that a Snapshot has no place for are left out.

    ObjectErrors for the first that is wrong.
    """
    assembly = Assembly()
    if settings is not None:
        assembly.settings(settings)
    for raw in objects:
        entry = find_kind(str(raw.get("apiVersion")), str(raw.get("kind")))
        if entry is not None and (entry.kind in CORE or entry.of_istio):
            assembly.put(entry.kind, with_namespace(raw) if entry.namespaced else raw)
    return assembly.build()


def with_namespace(raw: Mapping[str, Any], namespace: str = "default") -> Mapping[str, Any]:
    """The object in `namespace`, unless it says one."""
    meta = raw.get("metadata") or {}
    return raw if meta.get("namespace") else {**raw, "metadata": {**meta, "namespace": namespace}}
