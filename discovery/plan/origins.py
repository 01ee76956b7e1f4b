"""Origins and problems: how the plan says where something comes from and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from discovery.plan.model import Origin, Problem
from mesh.istio.base import IstioObject


def origin_of(thing: IstioObject[Any], field: str = "") -> Origin:
    return Origin(thing.kind, thing.namespace, thing.name, field)


def problem_with(thing: IstioObject[Any], field: str, message: str, hint: str) -> Problem:
    return Problem(origin_of(thing, field), message, hint)


def unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, sorted."""
    return tuple(sorted(set(problems), key=lambda p: (p.origin, p.message, p.hint)))
