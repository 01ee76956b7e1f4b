"""Small protobuf values in their JSON spelling, shared by all renderings."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

INBOUND_SOURCES = ("127.0.0.6", "::6")
"""Connections to the app in this pod come from here, so that the rules of `mesh/interception.py` let them pass."""
WILDCARD = "0.0.0.0"

_COMMAND = re.compile(r"%[A-Z0-9_]+(?:\([^)]*\))?(?::\d+)?%|%%")


def seconds(value: float) -> str:
    """A `Duration` in whole milliseconds. Zero stays zero (Envoy: none); what is shorter than 1 ms becomes 1 ms."""
    milliseconds = max(round(value * 1000), 1) if value > 0 else 0
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole}.{rest:03d}s" if rest else f"{whole}s"


def socket_address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def percent(value: float) -> Json:
    """A `FractionalPercent` of a percentage from 0 to 100, exact to four digits."""
    return {"numerator": round(value * 10_000), "denominator": "MILLION"}


def format_text(value: str) -> str:
    """A header's value as Envoy's substitution format: commands such as %DOWNSTREAM_REMOTE_ADDRESS% stay, any other
    percent sign is doubled (Envoy refuses the whole resource for one that begins no command)."""
    parts: list[str] = []
    end = 0
    for command in _COMMAND.finditer(value):
        parts.append(value[end : command.start()].replace("%", "%%"))
        parts.append(command.group())
        end = command.end()
    parts.append(value[end:].replace("%", "%%"))
    return "".join(parts)


def bind_source() -> Json:
    """The `upstream_bind_config` of every cluster whose endpoint is the app in this pod; Envoy takes the source of the
    endpoint's own IP version."""
    source, other = ({"address": address, "port_value": 0} for address in INBOUND_SOURCES)
    return {"source_address": source, "extra_source_addresses": [{"address": other}]}
