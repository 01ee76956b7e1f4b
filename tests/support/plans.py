"""Plans for tests: from YAML, field by field as in `discovery.plan.model`; what a test does not name is filled in."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from discovery.plan import model
from mesh.identity import Identity

_PROXY = {
    "namespace": "default",
    "pod": "app-1",
    "ip": "10.244.0.7",
    "identity": {"trust_domain": "cluster.local", "namespace": "default", "service_account": "app"},
    "role": "sidecar",
    "labels": [],
}
_EMPTY = {
    "proxy": _PROXY,
    "outbound": [],
    "inbound": [],
    "inbound_default": "PERMISSIVE",
    "gateways": [],
    "route_tables": [],
    "destinations": [],
    "endpoints": [],
    "allow_any": True,
}


def plan(fields: Mapping[str, Any]) -> model.Plan:
    """The Plan with `fields`; `proxy` may name only what differs."""
    proxy = {**_PROXY, **fields.get("proxy", {})}
    value = build(model.Plan, {**_EMPTY, **fields, "proxy": proxy})
    assert isinstance(value, model.Plan)
    return value


def build(kind: Any, value: Any) -> Any:
    """`value` (as YAML gives it) as a `kind`: dataclass, enum, tuple, optional or plain value. Unknown fields fail."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return build(next(each for each in typing.get_args(kind) if each is not types.NoneType), value)
    if origin is tuple:
        inner = typing.get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(build(inner[0], each) for each in value)
        return tuple(build(each, part) for each, part in zip(inner, value, strict=True))
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        hints = typing.get_type_hints(kind)
        unknown = set(value) - set(hints)
        assert not unknown, f"{kind.__name__} has no {sorted(unknown)}"
        return kind(**{name: build(hints[name], each) for name, each in value.items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float:
        return float(value)
    assert isinstance(value, kind), f"{value!r} is not a {kind.__name__}"
    return value


def identity(namespace: str = "default", account: str = "app", trust_domain: str = "cluster.local") -> Identity:
    return Identity(trust_domain, namespace, account)
