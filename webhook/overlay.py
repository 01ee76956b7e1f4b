"""A pod's own `istio-proxy` container laid over the injected one. Pure.

People customise the sidecar, or write a gateway, by a container of that name with image `auto`. What they write wins,
field by field; lists of named things are merged by name, as Kubernetes' strategic merge does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AUTO_IMAGE = "auto"

_KEYS = {"env": ("name",), "ports": ("containerPort", "protocol"), "volumeMounts": ("mountPath",)}
_DEFAULTS = {"protocol": "TCP"}

Raw = dict[str, Any]


def overlay(injected: Mapping[str, Any], own: Mapping[str, Any]) -> Raw:
    """`injected` with everything that `own` says; an `own` image of `auto` asks for the injected one.

    Actions exclude one another, so a probe or a lifecycle handler of one's own replaces the injected one whole.
    """
    merged = dict(injected)
    for name, value in own.items():
        if name == "image" and value == AUTO_IMAGE:
            continue
        before = merged.get(name)
        if name in _KEYS and isinstance(before, list) and isinstance(value, list):
            merged[name] = _by_key(before, value, _KEYS[name])
        elif name in ("resources", "securityContext") and isinstance(before, dict) and isinstance(value, dict):
            merged[name] = _deep(before, value)
        else:
            merged[name] = value
    return merged


def _by_key(before: list[Raw], own: list[Raw], key: tuple[str, ...]) -> list[Raw]:
    def of(item: Raw) -> tuple[Any, ...]:
        return tuple(item.get(part, _DEFAULTS.get(part)) for part in key)

    replaced = {of(item): item for item in own}
    known = {of(item) for item in before}
    return [replaced.get(of(item), item) for item in before] + [item for item in own if of(item) not in known]


def _deep(before: Mapping[str, Any], own: Mapping[str, Any]) -> Raw:
    merged = dict(before)
    for name, value in own.items():
        old = merged.get(name)
        merged[name] = _deep(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
