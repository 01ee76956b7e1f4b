"""What a model says to the API server: markers beside the fields, read by `mesh.crd_schema` and by nothing at run time.

A rule stands twice where both can say it: in `rules()`, which explains, and as a `Cel`, with which the API server
refuses the object before anybody stores it. CEL, its library and its limits:
https://kubernetes.io/docs/reference/using-api/cel/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cel:
    """One of `x-kubernetes-validations`: `rule` holds for `self`, or the object is refused with `message`."""

    rule: str
    message: str

    def as_json(self) -> dict[str, str]:
        return {"message": self.message, "rule": self.rule}


class Schema:
    """Keywords of a field's OpenAPI schema besides its type (`minimum`, `maxItems`, `pattern` ...) and CEL rules."""

    __slots__ = ("cel", "keywords")

    def __init__(self, *cel: Cel, **keywords: Any) -> None:
        self.cel = cel
        self.keywords: Mapping[str, Any] = keywords


def at_most_one(*fields: str) -> Cel:
    """No two of the fields are set."""
    return Cel(f"{_how_many(fields)} <= 1", f"{_named(fields)} exclude each other: keep one of them")


def exactly_one(*fields: str) -> Cel:
    """One of the fields is set, and only one."""
    return Cel(f"{_how_many(fields)} == 1", f"set exactly one of {', '.join(fields)}")


def at_least_one(*fields: str) -> Cel:
    """One of the fields is set, or more."""
    either = " || ".join(f"has(self.{each})" for each in fields)  # cheaper than a sum, and the API server counts
    return Cel(either, f"set at least one of {', '.join(fields)}")


def not_together(one: str, *others: str) -> Cel:
    """`one` is not set beside any of the `others`."""
    either = " || ".join(f"has(self.{each})" for each in others)
    return Cel(f"!(has(self.{one}) && ({either}))", f"{one} excludes {' and '.join(others)}: remove one of them")


def _how_many(fields: tuple[str, ...]) -> str:
    return " + ".join(f"(has(self.{each}) ? 1 : 0)" for each in fields)


def _named(fields: tuple[str, ...]) -> str:
    return " and ".join((", ".join(fields[:-1]), fields[-1]))
