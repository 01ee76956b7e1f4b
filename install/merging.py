"""Laying one tree of plain values over another. Pure; nothing given is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KEYS = {"ingressGateways": ("name", "namespace"), "egressGateways": ("name", "namespace")}
"""Lists of an IstioOperator whose items are merged, and what makes two of them the same."""


def overlaid(base: Any, over: Any) -> Any:
    """`base` with what `over` says: mappings field by field, gateways by name, anything else replaced."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            continue
        before = merged.get(key)
        if key in _KEYS and isinstance(before, list) and isinstance(value, list):
            merged[key] = by_key(before, value, _KEYS[key])
        else:
            merged[key] = overlaid(before, value) if key in merged else value
    return merged


def by_key(before: Sequence[Any], over: Sequence[Any], key: tuple[str, ...]) -> list[Any]:
    """Both lists in one: an item of `over` is laid over the one of `before` that has the same `key`, or comes last."""
    merged = list(before)
    for item in over:
        for index, known in enumerate(merged):
            if _same(known, item, key):
                merged[index] = overlaid(known, item)
                break
        else:
            merged.append(item)
    return merged


def _same(one: Any, other: Any, key: tuple[str, ...]) -> bool:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    return all((one.get(field) or "") == (other.get(field) or "") for field in key)
