"""`--set path=value`, as istioctl has it: `components.pilot.k8s.replicaCount=3`, `components.cni.enabled=true`,
`components.ingressGateways[name:istio-ingressgateway].enabled=true`, `a.b\\.c/d=x`. Overlays use the same paths. Pure.

Source: https://istio.io/latest/docs/setup/additional-setup/customize-installation/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.errors import InvalidInput
from mesh.yaml_values import Unreadable, load

_STEP = re.compile(r"(?:\\.|[^.\[\]\\])+|\[[^\]]*\]|\.")
_TEXT_FIELDS = frozenset({"tag", "revision", "hub", "profile", "namespace"})
_TEXT_MAPS = frozenset({"env", "podAnnotations", "serviceAnnotations", "nodeSelector", "label", "proxyMetadata"})
_MOST_ITEMS = 100


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a list: the one whose field `key` is `value`; of a list of texts, the one that is `value` (no key)."""

    key: str
    value: str


Step = str | int | Item


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a path; InvalidInput when it is none."""
    steps: list[Step] = []
    rest = text.strip()
    found = _STEP.findall(rest)
    if "".join(found) != rest or not rest or rest.endswith("."):
        raise InvalidInput(f"{text!r} is not a path", hint=r"write field.field[0].field, and a dot within a name as \.")
    for part in found:
        if part == ".":
            continue
        if not part.startswith("["):
            steps.append(re.sub(r"\\(.)", r"\1", part))
        elif part[1:-1].isdigit():
            steps.append(int(part[1:-1]))
        elif ":" in part:
            key, _, value = part[1:-1].partition(":")
            steps.append(Item(key, value))
        else:
            raise InvalidInput(f"{part} in {text!r} is no item of a list", hint="write [0] or [name:VALUE]")
    return tuple(steps)


def parse_assignment(text: str) -> tuple[tuple[Step, ...], Any]:
    """`path=value` in two; the value as YAML reads it, as text where the field is one."""
    path, separator, value = text.partition("=")
    if not separator:
        raise InvalidInput(f"--set {text!r} has no =", hint="write --set path=value")
    steps = parse_path(path.strip().removeprefix("spec."))
    names = [step for step in steps if isinstance(step, str)]
    if names and (names[-1] in _TEXT_FIELDS or (len(names) > 1 and names[-2] in _TEXT_MAPS)):
        return steps, value
    try:
        return steps, load(value) if value else ""
    except Unreadable as error:
        raise InvalidInput(f"the value of --set {text!r} cannot be read: {error.message}") from None


def assign(tree: dict[str, Any], steps: Sequence[Step], value: Any, about: str) -> None:
    """Put `value` at `steps` in `tree`; mappings and list items on the way are made. InvalidInput names `about`."""
    here: Any = tree
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        fresh: Any = value if last else ([] if not isinstance(steps[index + 1], str) else {})
        if isinstance(step, str):
            if not isinstance(here, dict):
                raise _no_way(about, step, "a mapping")
            if last or here.get(step) is None:
                here[step] = fresh
            here = here[step]
            continue
        if not isinstance(here, list):
            raise _no_way(about, step, "a list")
        place = _place(here, step, about)
        if place == len(here):
            here.append(fresh if last or isinstance(step, int) else {})
            if isinstance(step, Item) and step.key and not last:
                here[place][step.key] = step.value
        elif last:
            here[place] = value
        here = here[place]


def remove(tree: dict[str, Any], steps: Sequence[Step], about: str) -> None:
    """Take away what is at `steps`; nothing happens when it is not there."""
    here: Any = tree
    for step in steps[:-1]:
        here = _down(here, step, about)
        if here is None:
            return
    last = steps[-1]
    if isinstance(here, dict) and isinstance(last, str):
        here.pop(last, None)
    elif isinstance(here, list) and not isinstance(last, str):
        place = _place(here, last, about)
        if place < len(here):
            del here[place]


def _down(here: Any, step: Step, about: str) -> Any:
    if isinstance(step, str):
        return here.get(step) if isinstance(here, dict) else None
    if not isinstance(here, list):
        return None
    place = _place(here, step, about)
    return here[place] if place < len(here) else None


def _place(items: list[Any], step: int | Item, about: str) -> int:
    """The index that `step` names; the length of the list for a new item."""
    if isinstance(step, int):
        if step > len(items) or step >= _MOST_ITEMS:
            raise InvalidInput(f"{about}: the list has {len(items)} items, so there is no [{step}]")
        return step
    for index, item in enumerate(items):
        found = item.get(step.key) if isinstance(item, dict) else item if not step.key else None
        if str(found) == step.value:
            return index
    return len(items)


def _no_way(about: str, step: Step, wanted: str) -> InvalidInput:
    return InvalidInput(f"{about}: at {step!r} there is not {wanted}", hint="see the reference of IstioOperator")
