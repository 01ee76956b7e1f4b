"""Kubernetes' strategic merge of pods: objects by field, lists of named things by name. Pure.

Source: Kubernetes' "Update API Objects in Place Using kubectl patch", and the merge keys in the API reference of Pod.
Nothing of what is given is changed, and nothing is copied that need not be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Raw = dict[str, Any]
DIRECTIVE = "$patch"


@dataclass(frozen=True)
class _Kind:
    """How the fields of one kind of object are merged; what is not named is merged by field, lists replaced whole.

    `lists`: merge keys and kind of the items. `whole`: fields whose contents exclude one another, replaced whole.
    """

    objects: Mapping[str, _Kind] = field(default_factory=dict)
    lists: Mapping[str, tuple[tuple[str, ...], _Kind]] = field(default_factory=dict)
    sets: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    replaced: bool = False


_PLAIN = _Kind()
_REPLACED = _Kind(replaced=True)  # a variable has a value or a source, a volume has one source
_CONTAINER = _Kind(
    lists={
        "env": (("name",), _REPLACED),
        "ports": (("containerPort", "protocol"), _PLAIN),
        "volumeMounts": (("mountPath",), _REPLACED),
        "volumeDevices": (("devicePath",), _REPLACED),
    },
    # A probe has one action, and so has a handler of the life cycle.
    whole=frozenset({"livenessProbe", "readinessProbe", "startupProbe", "lifecycle"}),
)
_META = _Kind(lists={"ownerReferences": (("uid",), _PLAIN)}, sets=frozenset({"finalizers"}))
_SPEC = _Kind(
    lists={
        "containers": (("name",), _CONTAINER),
        "initContainers": (("name",), _CONTAINER),
        "volumes": (("name",), _REPLACED),
        "imagePullSecrets": (("name",), _PLAIN),
        "hostAliases": (("ip",), _REPLACED),
        "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"), _REPLACED),
        "resourceClaims": (("name",), _REPLACED),
        "schedulingGates": (("name",), _PLAIN),
    }
)
_POD = _Kind(objects={"metadata": _META, "spec": _SPEC})
_DEFAULTS = {"protocol": "TCP"}


def merge_pod(pod: Mapping[str, Any], patch: Mapping[str, Any]) -> Raw:
    """`pod` with everything that `patch` says; a null removes a field."""
    return _merge(pod, patch, _POD)


def merge_container(container: Mapping[str, Any], patch: Mapping[str, Any]) -> Raw:
    """`container` with everything that `patch` says; a null removes a field."""
    return _merge(container, patch, _CONTAINER)


def _merge(before: Mapping[str, Any], patch: Mapping[str, Any], kind: _Kind) -> Raw:
    if kind.replaced or patch.get(DIRECTIVE) == "replace":
        return {name: value for name, value in patch.items() if name != DIRECTIVE}
    merged = dict(before)
    for name, value in patch.items():
        if name == DIRECTIVE:
            continue
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _value(merged.get(name), value, name, kind)
    return merged


def _value(before: Any, value: Any, name: str, kind: _Kind) -> Any:
    if isinstance(value, dict):
        if isinstance(before, dict) and name not in kind.whole:
            return _merge(before, value, kind.objects.get(name, _PLAIN))
        return _without_directives(value)
    if isinstance(value, list):
        if name in kind.lists:
            keys, of = kind.lists[name]
            return _by_key(before if isinstance(before, list) else [], value, keys, of)
        if name in kind.sets and isinstance(before, list):
            return list(dict.fromkeys((*before, *value)))
    return value


def _by_key(before: list[Raw], patch: Iterable[Raw], keys: tuple[str, ...], kind: _Kind) -> list[Raw]:
    merged = {_key(item, keys): item for item in before}
    for item in patch:
        key = _key(item, keys)
        if item.get(DIRECTIVE) == "delete":
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged[key], item, kind) if key in merged else _without_directives(item)
    return list(merged.values())


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, _DEFAULTS.get(key)) for key in keys)


def _without_directives(value: Raw) -> Raw:
    return {name: item for name, item in value.items() if name != DIRECTIVE} if DIRECTIVE in value else value
