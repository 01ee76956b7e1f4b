"""How the values of annotations are written: one parser a form. Pure.

Every parser takes the text and returns the value; InvalidInput says what is wrong with it and how it is written.
Port lists, address ranges and names of interfaces are parsed by mesh/interception.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mesh.errors import InvalidInput
from mesh.interception import parse_ports
from mesh.yaml_values import Unreadable, load

PROXY_LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
AGENT_LOG_LEVELS = ("debug", "info", "warning", "error")

Raw = dict[str, Any]


def parse_truth(text: str) -> bool:
    """`true` and `false`, in the spellings that YAML 1.1 has for them."""
    word = text.strip().lower()
    if word in ("true", "yes", "y", "on", "1"):
        return True
    if word in ("false", "no", "n", "off", "0"):
        return False
    raise InvalidInput(f"{text!r} is neither true nor false", hint='write "true" or "false", in quotes')


def one_of(choices: tuple[str, ...], way_out: str = "") -> Callable[[str], str]:
    """A parser that takes exactly these words."""

    def parse(text: str) -> str:
        if text.strip() not in choices:
            known = ", ".join(choices)
            raise InvalidInput(f"{text!r} is not supported", hint=way_out or f"use one of {known}")
        return text.strip()

    return parse


_QUANTITY = re.compile(r"(\d+|\d+\.\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?\Z")


def parse_quantity(text: str) -> str:
    """An amount as Kubernetes writes it (100m, 1.5, 128Mi); returned as it is. Source: apimachinery's Quantity."""
    if not _QUANTITY.match(text.strip()):
        raise InvalidInput(f"{text!r} is not an amount", hint="write amounts as Kubernetes does: 100m, 2, 128Mi, 1Gi")
    return text.strip()


_IMAGE = re.compile(r"[\w.:/@-]{1,512}\Z", re.ASCII)


def parse_image(text: str) -> str:
    """The name of a container image."""
    if not _IMAGE.match(text.strip()):
        raise InvalidInput(f"{text!r} is not an image", hint="write it as registry/name:tag")
    return text.strip()


_IMAGE_TYPE = re.compile(r"[\w.-]{0,64}\Z", re.ASCII)


def parse_image_type(text: str) -> str:
    """The end of an image's tag."""
    if not _IMAGE_TYPE.match(text.strip()):
        raise InvalidInput(f"{text!r} cannot be part of a tag", hint="such as debug")
    return text.strip()


def parse_port(text: str) -> int:
    """One port."""
    ports = parse_ports(text)
    if len(ports) != 1:
        raise InvalidInput(f"{text!r} is not one port", hint="use a number from 1 to 65535")
    return ports[0]


def count_from(least: int) -> Callable[[str], int]:
    """A parser for whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) < 2**31):
            raise InvalidInput(f"{text!r} is not a whole number", hint=f"use a number from {least} on")
        return int(text)

    return parse


def parse_names(text: str) -> tuple[str, ...]:
    """`sidecar,custom` -> ("sidecar", "custom"); at least one."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise InvalidInput("it names nothing", hint="write names separated by commas, such as sidecar,custom")
    return names


_COMPONENT = re.compile(r"[a-z0-9_]{1,64}\Z")


def parse_component_levels(text: str) -> str:
    """`misc:error,filter:debug`, as Envoy's --component-log-level has it; returned without spaces."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        component, _, level = part.partition(":")
        if not _COMPONENT.match(component) or level not in PROXY_LOG_LEVELS:
            known = ", ".join(PROXY_LOG_LEVELS)
            raise InvalidInput(
                f"{part!r} is not component:level", hint=f"write such as misc:error,filter:debug; levels: {known}"
            )
    return ",".join(parts)


_AGENT_LEVEL_OF = {"warn": "warning", "none": "error", "fatal": "error", **{name: name for name in AGENT_LOG_LEVELS}}


def parse_agent_level(text: str) -> str:
    """`debug`, or Istio's list of scopes such as `default:info,xds:debug`; returned as a level of the agent's.

    The agent has one level for all of it, so the most talkative scope decides.
    """
    levels = []
    for part in text.split(","):
        level = part.strip().rpartition(":")[2]
        if level not in _AGENT_LEVEL_OF:
            known = ", ".join(AGENT_LOG_LEVELS)
            raise InvalidInput(f"{part.strip()!r} is not a level", hint=f"use {known}, or scope:level,...")
        levels.append(_AGENT_LEVEL_OF[level])
    return min(levels, key=AGENT_LOG_LEVELS.index)


def parse_mapping(text: str) -> Mapping[str, Any]:
    """Fields of ProxyConfig, in YAML."""
    try:
        config = load(text)
    except Unreadable as error:
        raise InvalidInput(
            f"it cannot be read: {error.message}", hint="write fields of ProxyConfig, such as concurrency: 1"
        ) from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise InvalidInput("it is not a mapping", hint="write fields of ProxyConfig, such as concurrency: 1")
    return config


def named_objects(example: str) -> Callable[[str], tuple[Raw, ...]]:
    """A parser for JSON objects by name, `{"name": {...}}`, or a list of objects that have a `name` each."""

    def parse(text: str) -> tuple[Raw, ...]:
        value = _json(text, example)
        if isinstance(value, dict):
            value = [{"name": name, **item} if isinstance(item, dict) else None for name, item in value.items()]
        if not isinstance(value, list) or not all(
            isinstance(i, dict) and isinstance(i.get("name"), str) for i in value
        ):
            raise InvalidInput("it is not a list of objects with a name each", hint=f"write such as {example}")
        return tuple(value)

    return parse


def parse_buckets(text: str) -> Mapping[str, tuple[float, ...]]:
    """`{"istiocustom": [1, 5, 10]}`: bounds of histograms, by the prefix of their names."""
    example = '{"istiocustom": [1, 5, 10, 50]}'
    value = _json(text, example)
    found: dict[str, tuple[float, ...]] = {}
    for prefix, bounds in value.items() if isinstance(value, dict) else ():
        if not isinstance(bounds, list) or not all(type(b) in (int, float) and 0 < b < 1e15 for b in bounds):
            break
        if not bounds or sorted(set(bounds)) != bounds:
            break
        found[prefix] = tuple(bounds)
    if not isinstance(value, dict) or not value or len(found) != len(value):
        raise InvalidInput("it is not lists of growing numbers above 0, by prefix", hint=f"write such as {example}")
    return found


def _json(text: str, example: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"it is not JSON: {error}", hint=f"write such as {example}") from None
