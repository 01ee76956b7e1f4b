"""The objects of a mesh as they would be with some manifests applied, or taken away. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from local.endpoints import endpoint_slices, with_cluster_ip
from local.offline import Objects, Raw
from mesh.kinds import find_kind
from mesh.manifest import Document
from mesh.objects import Key

NEWEST = "9999-12-31T23:59:59Z"
"""When an object was created that is not there yet: of two that say the same, the older one counts."""
_RUN_BY_OTHERS = frozenset(
    {"Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Job", "CronJob"}
)


def applied(
    objects: Objects, documents: Iterable[Document], namespace: str, *, delete: bool = False
) -> tuple[dict[str, list[Raw]], tuple[str, ...]]:
    """The objects afterwards, and what is not compared: pods are, as they run now."""
    after = {kind: {_key(raw): raw for raw in found} for kind, found in objects.items()}
    notices: list[str] = []
    services: list[Key] = []
    for document in documents:
        kind, key = document.kind, key_of(document, namespace)
        if kind in _RUN_BY_OTHERS:
            notices.append(f"{kind} {key}: its pods are compared as they run now, for they are not rolled out here")
            continue
        known = after.setdefault(kind, {})
        if delete:
            known.pop(key, None)
            continue
        before = known.get(key)
        known[key] = _completed(document.raw, key, before)
        if kind == "Service" and (before is None or _chooses(before) != _chooses(known[key])):
            services.append(key)
    _with_addresses(after, services)
    return {kind: list(found.values()) for kind, found in after.items()}, tuple(notices)


def key_of(document: Document, namespace: str) -> Key:
    """Namespace and name; the namespace is empty for kinds without."""
    entry = find_kind(document.api_version, document.kind)
    namespaced = entry.namespaced if entry is not None else True
    return Key((document.namespace or namespace) if namespaced else "", document.name)


def _completed(raw: Raw, key: Key, before: Raw | None) -> Raw:
    """As the API server would: with what it has given the object before."""
    created = before["metadata"].get("creationTimestamp", "") if before else NEWEST
    meta = {**raw["metadata"], "name": key.name, "creationTimestamp": created}
    if key.namespace:
        meta["namespace"] = key.namespace
    completed = {**raw, "metadata": meta}
    if raw["kind"] == "Service" and before is not None:
        given = {name: value for name, value in before["spec"].items() if name in ("clusterIP", "clusterIPs")}
        completed["spec"] = {**given, **(raw.get("spec") or {})}
    return completed


def _chooses(service: Raw) -> object:
    """What of a service its endpoints follow from."""
    spec = service.get("spec") or {}
    return spec.get("selector"), spec.get("ports"), spec.get("type")


def _with_addresses(after: dict[str, dict[Key, Raw]], services: Iterable[Key]) -> None:
    """New and changed services get addresses, and their endpoints anew."""
    known, slices = after.get("Service", {}), after.setdefault("EndpointSlice", {})
    taken = {address: key for key, raw in known.items() if (address := (raw.get("spec") or {}).get("clusterIP"))}
    for key in services:
        for name in [name for name, raw in slices.items() if _service_of(raw) == key]:
            del slices[name]
        if key in known:
            known[key] = with_cluster_ip(known[key], taken)
            made = endpoint_slices([known[key]], after.get("Pod", {}).values())
            slices.update((_key(raw), raw) for raw in made)


def _service_of(raw: Raw) -> Key:
    labels = raw["metadata"].get("labels") or {}
    return Key(raw["metadata"]["namespace"], labels.get("kubernetes.io/service-name", ""))


def _key(raw: Raw) -> Key:
    return Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
