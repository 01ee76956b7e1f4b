"""Values of a plan in words: short enough for a line, and equal only where the values are. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import Enum
from typing import Any

from discovery.plan.model import (
    ClientTls,
    Endpoint,
    HeaderChanges,
    NamedMatch,
    RequestMatch,
    Target,
    TextMatch,
    TlsMode,
)
from discovery.plan.rules import UNLIMITED
from mesh.identity import Identity
from mesh.settings import CLUSTER_DOMAIN

NOTHING = "none"
_SUFFIX = f".{CLUSTER_DOMAIN}"


def said(value: Any) -> str:
    """`value` for people."""
    match value:
        case None | () | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case Enum():
            return str(value.value)
        case int():
            return "unlimited" if value == UNLIMITED else str(value)
        case float():
            return f"{value:g}"
        case ClientTls(mode=TlsMode.ISTIO_MUTUAL):
            return "mutual TLS where it is taken" if value.automatic else "mutual TLS"
        case TextMatch():
            return _text(value)
        case NamedMatch():
            return f"{value.name} {_text(value.match)}"
        case RequestMatch():
            parts = [
                f"path {_text(value.path)}",
                *map(said, value.headers),
                *(f"?{said(each)}" for each in value.query),
            ]
            return ", ".join(parts)
        case HeaderChanges():
            parts = [*(f"{k}: {v}" for k, v in value.set), *(f"+{k}: {v}" for k, v in value.add)]
            return ", ".join([*parts, *(f"-{name}" for name in value.remove)]) or NOTHING
        case Endpoint():
            return value.workload or f"{value.address}:{value.port}"
        case Target():
            return short(value.destination)
        case Identity():
            return str(value)
        case tuple():
            return ", ".join(map(said, value))
    if dataclasses.is_dataclass(value):
        return ", ".join(f"{name} {text}" for name, text in _fields(value)) or "the defaults"
    return str(value)


def _fields(value: Any) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if item != field.default and field.name not in ("origins", "origin"):
            yield field.name.replace("_", " "), said(item)


def _text(match: TextMatch) -> str:
    flags = (" in any case" if match.ignore_case else "") + (" not" if match.invert else "")
    return f"{match.kind.value} {match.value}".rstrip() + flags


def short(destination: str) -> str:
    """`reviews.default.svc:9080 subset v1` for `outbound|9080|v1|reviews.default.svc.cluster.local`."""
    parts = destination.split("|")
    if len(parts) != 4 or not parts[3]:
        return destination
    _, port, subset, host = parts
    return f"{short_host(host)}:{port}" + (f" subset {subset}" if subset else "")


def short_host(host: str) -> str:
    """Without the cluster's domain, also before a port."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        return f"{short_host(name)}:{port}"
    return host.removesuffix(_SUFFIX)
