"""The files that configMap, secret, downwardAPI and projected volumes consist of. Pure, given lookups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.env import Lookup, content, decoded, field_value, resource_value
from mesh.errors import InvalidInput, NotFound

DEFAULT_MODE = 0o644
DEFAULT_TOKEN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Item:
    """One file: content, permission bits, and whether it is a token."""

    content: bytes
    mode: int
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A token in use and when to replace it."""

    text: str
    refresh_at: float


# Relative path -> file.
Payload = dict[str, Item]
# (volume, index of the source, audience, seconds) -> token
Tokens = Callable[[str, int, str, int], str]


def payload(
    pod: Mapping[str, Any], volume: str, kind: str, source: Mapping[str, Any], lookup: Lookup, tokens: Tokens
) -> Payload:
    """All files of the volume; NotFound or InvalidInput name pod and volume."""
    default = source.get("defaultMode")
    mode = DEFAULT_MODE if default is None else int(default)
    where = f"pod {pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}, volume {volume!r}"
    if kind != "projected":
        return dict(_files(pod, where, kind, source, mode, lookup))
    files: Payload = {}
    for index, part in enumerate(source.get("sources") or []):
        token = part.get("serviceAccountToken")
        if token:
            seconds = int(token.get("expirationSeconds") or DEFAULT_TOKEN_SECONDS)
            text = tokens(volume, index, token.get("audience") or "", seconds)
            files[token["path"]] = Item(text.encode(), mode, secret=True)
            continue
        of_kind = next((name for name in ("configMap", "secret", "downwardAPI") if part.get(name)), None)
        if of_kind is None:
            raise InvalidInput(
                f"{where}: source {', '.join(part) or 'nothing'} is not available here", field="projected"
            )
        files.update(_files(pod, where, of_kind, part[of_kind], mode, lookup))
    return files


def _files(
    pod: Mapping[str, Any], where: str, kind: str, source: Mapping[str, Any], mode: int, lookup: Lookup
) -> Iterator[tuple[str, Item]]:
    if kind == "downwardAPI":
        for item in source.get("items") or []:
            yield item["path"], Item(_downward(pod, item, where).encode(), item.get("mode") or mode)
        return
    namespace = pod["metadata"].get("namespace") or "default"
    # Secret volumes say secretName; projected secrets and ConfigMaps say name.
    name = source.get("secretName") or source.get("name") or ""
    found = lookup("ConfigMap" if kind == "configMap" else "Secret", namespace, name)
    if found is None:
        if source.get("optional"):
            return
        raise NotFound(f"{where}: {kind} {namespace}/{name} does not exist", hint="create it, or set optional: true")
    data = content(found) if kind == "configMap" else decoded(found)
    if not source.get("items"):
        for key, value in sorted(data.items()):
            yield key, Item(value, mode)
        return
    for item in source["items"]:
        if item["key"] in data:
            yield item["path"], Item(data[item["key"]], item.get("mode") or mode)
        elif not source.get("optional"):
            raise NotFound(f"{where}: {kind} {namespace}/{name} has no key {item['key']!r}")


def _downward(pod: Mapping[str, Any], item: Mapping[str, Any], where: str) -> str:
    if item.get("fieldRef"):
        return field_value(pod, item["fieldRef"]["fieldPath"], f"{where}: {item['path']}")
    reference = item.get("resourceFieldRef") or {}
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        if container["name"] == reference.get("containerName"):
            return resource_value(container, reference, f"{where}: {item['path']}")
    raise InvalidInput(f"{where}: {item['path']} refers to no field, or to a container that there is not")
