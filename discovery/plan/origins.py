"""Origins and problems: how the plan says where something comes from and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from discovery.plan.model import Origin, Problem
from mesh.istio.base import IstioObject, unhonoured
from mesh.problems import spell


def origin_of(thing: IstioObject[Any], field: str = "") -> Origin:
    return Origin(thing.kind, thing.namespace, thing.name, field)


def problem_with(thing: IstioObject[Any], field: str, message: str, hint: str) -> Problem:
    return Problem(origin_of(thing, field), message, hint)


def unhonoured_fields(thing: IstioObject[Any]) -> tuple[Problem, ...]:
    """A problem for each field in use that this release reads and does not act upon."""
    return tuple(
        problem_with(thing, spell(path), "Heddle does not act upon this field yet", "remove it, or accept its absence")
        for path in unhonoured(thing.spec, ("spec",))
    )


def age(thing: IstioObject[Any]) -> tuple[str, str, str]:
    """Sorts the oldest first; objects without a time (from files) by name, then namespace, as in Istio."""
    return (thing.created, thing.name, thing.namespace)


def unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, sorted."""
    return tuple(sorted(set(problems), key=lambda p: (p.origin, p.message, p.hint)))
