"""Origins and problems: how the plan says where something comes from and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mesh.istio.base import IstioObject


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The object (and the field in it) that an element of the plan comes from."""

    kind: str
    namespace: str
    name: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that an object asks for and that cannot be done as written; the rest of the plan stands."""

    origin: Origin
    message: str
    hint: str


def origin_of(thing: IstioObject[Any], field: str = "") -> Origin:
    return Origin(thing.kind, thing.namespace, thing.name, field)


def problem_with(thing: IstioObject[Any], field: str, message: str, hint: str) -> Problem:
    return Problem(origin_of(thing, field), message, hint)


def unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, sorted."""
    return tuple(sorted(set(problems), key=lambda p: (p.origin, p.message, p.hint)))
