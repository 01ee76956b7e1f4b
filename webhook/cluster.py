"""What the webhook knows of the cluster: labels of namespaces, mesh settings, ProxyConfigs. Kept current by a watch."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from kube.source import Changed, Event, Listed, Watched, list_path
from mesh import injector
from mesh.errors import InvalidInput, NotFound, Unavailable
from mesh.kinds import parse_istio, watched_by
from mesh.objects import Key, Namespace, parse_config_map, parse_meta, parse_namespace
from mesh.proxy_configs import KIND as PROXY_CONFIG
from mesh.proxy_configs import Object, proxy_configs
from mesh.settings import SETTINGS_KEY, parse_mesh_settings
from webhook.config import DEFAULT_REVISION, InjectionConfig
from webhook.injector import injector_settings

SETTINGS_NAME = "istio"
NAMESPACES = "Namespace"
SETTINGS = "mesh settings"
INJECTOR = "injector settings"

FOR_INJECTION = (NAMESPACES, PROXY_CONFIG)
"""Of the kinds that the webhook watches those for injection; the others are for warnings at admission (advice.py)."""
(_PROXY_CONFIGS,) = (kind for kind in watched_by("webhook") if kind.kind == PROXY_CONFIG)
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")

log = structlog.get_logger("webhook")


def name_of_revision(name: str, revision: str) -> str:
    """What an object of the control plane is called for `revision`, as in Istio."""
    return name if revision == DEFAULT_REVISION else f"{name}-{revision}"


def watched(control_namespace: str, revision: str = DEFAULT_REVISION) -> tuple[Watched, ...]:
    """What to give to a `kube.source.Source`. Each ConfigMap by its name, which is all that the webhook may read."""
    maps = list_path("", "v1", "configmaps", control_namespace)
    return (
        *(
            Watched(kind.kind, kind.path, definition=kind.definition)
            for kind in watched_by("webhook")
            if kind.kind in FOR_INJECTION
        ),
        *(
            Watched(kind, maps, {"fieldSelector": f"metadata.name={name_of_revision(name, revision)}"})
            for kind, name in ((SETTINGS, SETTINGS_NAME), (INJECTOR, injector.NAME))
        ),
    )


class Cluster:
    """`on_event` is a Source's listener. `get` reads one object, for a namespace that the watch has not shown yet."""

    def __init__(self, base: InjectionConfig, get: Callable[[str], Any]) -> None:
        self._base = base
        self._get = get
        self._labels: dict[str, Mapping[str, str]] = {}
        self._proxy_configs: dict[Key, Object] = {}
        self._changing = threading.Lock()
        self._config = base

    @property
    def config(self) -> InjectionConfig:
        """The base, with the mesh's settings as they are now."""
        return self._config

    def set_tags(self, revisions: frozenset[str]) -> None:
        """The values of `istio.io/rev` that lead here."""
        self._change(tags=revisions - {self._base.revision})

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Labels of the namespace. A pod comes before its new namespace's event, so the API server is asked then."""
        known = self._labels.get(name)
        if known is not None:
            return known
        if not _NAMESPACE.match(name):
            raise InvalidInput(f"{name!r} is not the name of a namespace", field="request.namespace")
        try:
            return parse_namespace(self._get(f"/api/v1/namespaces/{name}")).meta.labels
        except NotFound:
            raise Unavailable(f"namespace {name} is not known yet", hint="try again") from None

    def on_event(self, event: Event) -> None:
        """Called from one thread a kind; each kind touches its own part, and parts are replaced whole."""
        if isinstance(event, Listed):
            self._listed(event)
        elif isinstance(event, Changed):
            if event.kind == NAMESPACES:
                self._namespace(parse_namespace(event.object), deleted=event.deleted)
            elif event.kind == PROXY_CONFIG:
                self._proxy_config(event.object, deleted=event.deleted)
            elif self._is_read(event.kind, event.object):
                self._read(event.kind, None if event.deleted else event.object)

    def _listed(self, event: Listed) -> None:
        if event.kind == NAMESPACES:
            namespaces = map(parse_namespace, event.objects)
            self._labels = {namespace.meta.name: namespace.meta.labels for namespace in namespaces}
            return
        if event.kind == PROXY_CONFIG:
            listed = {parse_meta(raw).key for raw in event.objects}
            for key in self._proxy_configs.keys() - listed:
                self._proxy_configs.pop(key)
            for raw in event.objects:
                self._proxy_config(raw, deleted=False)
            self._change()
            return
        ours = [raw for raw in event.objects if self._is_read(event.kind, raw)]
        self._read(event.kind, ours[0] if ours else None)

    def _namespace(self, namespace: Namespace, *, deleted: bool) -> None:
        if deleted:
            self._labels.pop(namespace.meta.name, None)
        else:
            self._labels[namespace.meta.name] = namespace.meta.labels

    def _proxy_config(self, raw: Mapping[str, Any], *, deleted: bool) -> None:
        """One that is wrong leaves its last good version in force; discovery tells of it in its status."""
        key = parse_meta(raw).key
        if deleted:
            self._proxy_configs.pop(key, None)
        else:
            try:
                # The items of a list may leave out what the list itself says.
                entry = _PROXY_CONFIGS
                self._proxy_configs[key] = parse_istio({"apiVersion": entry.api_version, "kind": entry.kind, **raw})
            except InvalidInput as error:
                log.error("a ProxyConfig is not taken over", name=str(key), error=str(error))
        self._change()

    def _is_read(self, kind: str, raw: Mapping[str, Any]) -> bool:
        name = SETTINGS_NAME if kind == SETTINGS else injector.NAME
        return bool(raw.get("metadata", {}).get("name") == name_of_revision(name, self._base.revision))

    def _read(self, kind: str, raw: Mapping[str, Any] | None) -> None:
        if kind == SETTINGS:
            self._settings(raw)
        else:
            self._injector(raw)

    def _change(self, **fields: Any) -> None:
        with self._changing:
            config = replace(self._config, **fields)
            found = proxy_configs(list(self._proxy_configs.values()), config.settings.root_namespace)
            self._config = replace(config, proxy_configs=found)

    def _injector(self, raw: Mapping[str, Any] | None) -> None:
        """A mistake in them leaves the ones before in force."""
        try:
            settings = injector_settings(parse_config_map(raw).data if raw else {})
        except InvalidInput as error:
            log.error("injector settings not taken over, the ones before stay in force", error=str(error))
            return
        self._change(injector=settings)
        log.info("injector settings taken over", templates=sorted(settings.templates))

    def _settings(self, raw: Mapping[str, Any] | None) -> None:
        """A mistake in the settings leaves the ones before in force."""
        try:
            text = parse_config_map(raw).data.get(SETTINGS_KEY, "") if raw else ""
            settings = parse_mesh_settings(text, self._base.control_namespace)
        except InvalidInput as error:
            log.error("mesh settings not taken over, the ones before stay in force", error=str(error))
            return
        # The trust domain comes with the certificates, by the command line; what pods are told must be the same.
        given = settings.model_fields_set
        if "trust_domain" in given and settings.trust_domain != self._base.settings.trust_domain:
            log.error(
                "mesh settings name another trust domain than this webhook was started with",
                settings=settings.trust_domain,
                started_with=self._base.settings.trust_domain,
            )
        settings = settings.model_copy(update={"trust_domain": self._base.settings.trust_domain})
        self._change(settings=settings)
        log.info("mesh settings taken over", ignored=settings.ignored_fields())
