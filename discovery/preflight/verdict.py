"""Who is to blame for what Envoy refuses: halves of a trial, until one resource is left. Pure, but for `refused`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from discovery.plan.origins import Origin
from discovery.preflight.trials import Element, Trial

_LOG_HEAD = re.compile(r"^(\[[^]]*\] ?)+")
_LONGEST = 400

Refused = Callable[[Sequence[Element]], str]
"""Envoy's words when it does not load these; "" when it does."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`field` of the object leads to something that Envoy does not take: `message`, for `proxies` like `example`."""

    field: str
    message: str
    element: str
    example: str
    proxies: int

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def judge_all(trials: Sequence[Trial], raw: Mapping[str, Any], refused: Refused) -> list[Refusal]:
    """The refusals that the object `raw` is to blame for. Usually all is taken, and what is taken together is taken in
    each trial: so one Envoy does for all."""
    everything = {(each.kind, each.name, _told(each)): each for trial in trials for each in trial.elements}
    if not everything or not refused(list(everything.values())):
        return []
    return [found for trial in trials if (found := judge(trial, raw, refused)) is not None]


def _told(element: Element) -> bytes:
    return orjson.dumps(element.config)


def judge(trial: Trial, raw: Mapping[str, Any], refused: Refused) -> Refusal | None:
    """The refusal that the object `raw` is to blame for; None when Envoy takes everything, or blames what is not the
    object's."""
    words = refused(trial.elements)
    if not words:
        return None
    elements, words = _culprit(trial.elements, words, refused)
    for element in elements:
        field = _field_of(element.origins, raw)
        if field is not None:
            name = f"{element.kind} {element.name}"
            return Refusal(field, _short(words), name, str(trial.example), trial.proxies)
    return None


def _culprit(elements: Sequence[Element], words: str, refused: Refused) -> tuple[Sequence[Element], str]:
    """The smallest part that is still refused; more than one where only their being together is."""
    while len(elements) > 1:
        half = len(elements) // 2
        for part in (elements[:half], elements[half:]):
            said = refused(part)
            if said:
                elements, words = part, said
                break
        else:
            break
    return elements, words


def _field_of(origins: Sequence[Origin], raw: Mapping[str, Any]) -> str | None:
    """The field of the object among the origins; None when it is not among them."""
    meta = raw["metadata"]
    me = (raw["kind"], meta.get("namespace") or "", meta["name"])
    fields = [origin.field for origin in origins if (origin.kind, origin.namespace, origin.name) == me]
    return (fields[0] or "spec") if fields else None


def _short(words: str) -> str:
    """Envoy's own reason, without where it read it."""
    line = next((line.strip() for line in words.splitlines() if line.strip()), "it gives no reason")
    return _LOG_HEAD.sub("", line.partition("preflight.json': ")[2] or line)[:_LONGEST]
