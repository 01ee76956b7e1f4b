"""From the API server's events to Snapshots.

A Snapshot is immutable and its maps are shared from one to the next: only the map of a kind that changed is copied,
and an object that changed in nothing that Heddle uses (a heartbeat in a status, say) keeps its identity, so that
whoever remembers results by identity finds them again. An object that cannot be read leaves its last good version in
force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any

from discovery.findings import Finding, Severity, of_error, of_field
from discovery.object_status import Seen, seen
from discovery.tally import Thing
from kube.source import Changed, Event, Listed, Watched, list_path
from mesh.identity import CONTROL_NAMESPACE
from mesh.kinds import Kind, parse_with_warnings, watched_by, without_effect
from mesh.objects import Key, parse_config_map, parse_meta, parse_secret
from mesh.settings import SETTINGS_KEY, MeshSettings, mesh_settings, parse_mesh_settings
from mesh.snapshot import BY_NAME_ALONE, CORE, Snapshot

SETTINGS = "istio"
DEFAULT_REVISION = "default"

_SECRET_FIELDS = frozenset({"tls.crt", "cert", "cacert", "ca.crt"})
_KEPT = "its last good version stays in force"
_IGNORED = "it has no effect"
_NOT_ACTED_UPON = "Heddle does not act upon this setting"
_NOT_COMPARED = frozenset({"resource_version", "generation", "_hash"})


def settings_of(revision: str = DEFAULT_REVISION, control_namespace: str = CONTROL_NAMESPACE) -> Key:
    """The ConfigMap with the mesh's settings: `istio`, or `istio-<revision>`, as in Istio."""
    return Key(control_namespace, SETTINGS if revision == DEFAULT_REVISION else f"{SETTINGS}-{revision}")


def watches(settings: Key) -> list[Watched]:
    """What discovery lists and watches, but for Secrets: gateway_secrets.py."""
    kinds = [Watched(kind.kind, kind.path, definition=kind.definition) for kind in _kinds()]
    maps = list_path("", "v1", "configmaps", settings.namespace)
    return [*kinds, Watched("ConfigMap", maps, {"fieldSelector": f"metadata.name={settings.name}"})]


def _kinds() -> list[Kind]:
    return [kind for kind in watched_by("discovery") if kind.kind != "ConfigMap"]


class SnapshotBuilder:
    """Feed it events with `apply`; `build` gives the Snapshot as of now, the same one when nothing changed."""

    def __init__(self, settings: Key) -> None:
        self._settings_key = settings
        self._istio = {kind.kind: kind for kind in _kinds() if kind.of_istio}
        self.seen: dict[Thing, Seen] = {}
        """Istio's objects as the API server has them, those that cannot be read too."""
        self._objects: dict[str, dict[Key, Any]] = {kind: {} for kind in (*CORE, *self._istio)}
        self._findings: dict[tuple[str, Key], tuple[Finding, ...]] = {}
        self._changed: set[str] = set()
        self._without_effect = {kind.kind for kind in self._istio.values() if kind.planned}
        self._settings = mesh_settings(settings.namespace)
        self._snapshot = Snapshot(settings=self._settings, settings_at=settings)
        self.versions: dict[str, int] = {}
        """Kind -> version of its newest change."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with objects as they are now."""
        return tuple(finding for found in self._findings.values() for finding in found)

    def apply(self, event: Event) -> None:
        """Take in one event. Never raises because of an object."""
        if isinstance(event, Listed):
            self._replace(event)
        elif isinstance(event, Changed):
            if event.deleted:
                self._delete(event.kind, parse_meta(event.object).key)
            else:
                self._put(event.kind, event.object)
        self.versions[event.kind] = max(event.resource_version, self.versions.get(event.kind, 0))

    def build(self) -> Snapshot:
        """A new Snapshot when anything in it changed."""
        changes: dict[str, Any] = {}
        for kind in self._changed & CORE.keys():
            changes[CORE[kind][0]] = self._frozen(kind)
        istio = self._changed & self._istio.keys() - self._without_effect
        if istio:
            changes["istio"] = MappingProxyType(
                {**self._snapshot.istio, **{kind: self._frozen(kind) for kind in sorted(istio)}}
            )
        if self._settings is not self._snapshot.settings:
            changes["settings"] = self._settings
        newest = max(self.versions.values(), default=0)
        if changes or newest > self._snapshot.resource_version:
            self._snapshot = self._snapshot.replacing(**changes, resource_version=newest)
        self._changed.clear()
        return self._snapshot

    def _frozen(self, kind: str) -> Mapping[Any, Any]:
        objects: dict[Any, Any] = self._objects[kind]
        if kind in BY_NAME_ALONE:
            return MappingProxyType({key.name: value for key, value in objects.items()})
        return MappingProxyType(dict(objects))

    def _replace(self, event: Listed) -> None:
        listed = {parse_meta(raw).key for raw in event.objects}
        known = [self._settings_key] if event.kind == "ConfigMap" else list(self._objects[event.kind])
        unread = [key for kind, key in self._findings if kind == event.kind]
        for key in dict.fromkeys([*known, *unread]):
            if key not in listed:
                self._delete(event.kind, key)
        for raw in event.objects:
            self._put(event.kind, raw)

    def _put(self, kind: str, raw: Mapping[str, Any]) -> None:
        meta = parse_meta(raw)
        if kind == "ConfigMap":
            if meta.key == self._settings_key:
                self._read_settings(raw)
            return
        objects = self._objects[kind]
        before = objects.get(meta.key)
        if kind in self._istio:
            self.seen[Thing(kind, *meta.key)] = seen(self._istio[kind], raw)
        try:
            parsed, found = self._parse(kind, raw)
        except Exception as error:  # whatever an object does to its parser, the others go on
            effect = _KEPT if before is not None else _IGNORED
            self._findings[kind, meta.key] = of_error(kind, meta.namespace, meta.name, error, effect)
            return
        self._note(kind, meta.key, found)
        if parsed is None:
            self._drop(kind, meta.key)
        elif before is None or not same(before, parsed):
            objects[meta.key] = parsed
            self._changed.add(kind)

    def _parse(self, kind: str, raw: Mapping[str, Any]) -> tuple[Any, tuple[Finding, ...]]:
        """The typed object, None when it is of no use here, and its warnings."""
        if kind == "Secret":
            secret = parse_secret(raw)
            return (secret if _SECRET_FIELDS & secret.data.keys() else None), ()
        if kind in CORE:
            return CORE[kind][1](raw), ()
        entry = self._istio[kind]
        # The items of a list may leave out what the list itself says.
        typed, warnings = parse_with_warnings({"apiVersion": entry.api_version, "kind": kind, **raw})
        found = (*warnings, *without_effect(typed))
        return typed, tuple(
            of_field(kind, typed.namespace, typed.name, each, severity=Severity.WARNING) for each in found
        )

    def _delete(self, kind: str, key: Key) -> None:
        if kind == "ConfigMap":
            if key == self._settings_key:
                self._set_settings(mesh_settings(self._settings_key.namespace))
        else:
            self._drop(kind, key)
        self._findings.pop((kind, key), None)
        self.seen.pop(Thing(kind, *key), None)

    def _drop(self, kind: str, key: Key) -> None:
        if self._objects[kind].pop(key, None) is not None:
            self._changed.add(kind)

    def _note(self, kind: str, key: Key, found: tuple[Finding, ...]) -> None:
        self._findings.pop((kind, key), None)
        if found:
            self._findings[kind, key] = found

    def _read_settings(self, raw: Mapping[str, Any]) -> None:
        where = ("ConfigMap", *self._settings_key)
        try:
            text = parse_config_map(raw).data.get(SETTINGS_KEY, "")
            settings = parse_mesh_settings(text, self._settings_key.namespace)
        except Exception as error:  # as above: the settings before stay
            self._findings["ConfigMap", self._settings_key] = of_error(
                *where, error, "the settings before it stay in force"
            )
            return
        self._note(
            "ConfigMap",
            self._settings_key,
            tuple(
                Finding(*where, f"data.{SETTINGS_KEY}: {path}", _NOT_ACTED_UPON, severity=Severity.WARNING)
                for path in settings.ignored_fields()
            ),
        )
        self._set_settings(settings)

    def _set_settings(self, settings: MeshSettings) -> None:
        if settings != self._settings:
            self._settings = settings


def same(one: Any, other: Any) -> bool:
    """Whether two objects say the same, versions aside. `mesh.objects` compare by identity, so this looks inside."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(
            same(getattr(one, field.name), getattr(other, field.name))
            for field in fields(one)
            if field.name not in _NOT_COMPARED
        )
    if type(one) is tuple:
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def same_content(one: Snapshot, other: Snapshot) -> bool:
    """Whether nothing but the version differs."""
    return all(
        getattr(one, field.name) is getattr(other, field.name)
        for field in fields(Snapshot)
        if field.name != "resource_version"
    )
