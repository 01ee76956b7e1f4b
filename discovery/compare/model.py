"""A change of a plan, and the proxies that it is made for."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.plan.origins import Origin
from mesh.objects import Key


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """`part` is the kind of element (`route`, `destination` ...), `name` the element, `what` the field within it, empty
    for the whole element. `before` is empty for what is new, `after` for what is gone."""

    part: str
    name: str
    what: str = ""
    before: str = ""
    after: str = ""
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """A change that all of these proxies get; their pods, sorted."""

    changes: tuple[Change, ...]
    proxies: tuple[Key, ...]
