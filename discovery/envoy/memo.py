"""What was rendered before, by the identity of the element that it was rendered from.

Elements of plans are immutable and shared between plans, so the same object always renders to the same bytes. Hashing
their values instead would cost more than rendering: the identity is the key, and the element is kept beside it, so that
no other can take its address. Nothing is lost but time when an equal element is rendered again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from hashlib import blake2b
from operator import is_
from typing import Any, TypeVar

import orjson

from discovery.layers import Shared

E = TypeVar("E")
Rendered = tuple[str, bytes]
"""(version, bytes): the version is a short hash of the bytes."""

O = TypeVar("O", bound=Hashable)  # noqa: E741

_DIGEST_BYTES = 8
MOST_SETS = 256
"""Shared sets kept at once: five for each client namespace. The longest unused goes first."""


def rendered(resource: dict[str, Any]) -> Rendered:
    """`resource` as JSON, with its version."""
    text = orjson.dumps(resource)
    return blake2b(text, digest_size=_DIGEST_BYTES).hexdigest(), text


class Memo:
    """Two generations: when the young one has grown to `capacity` bytes, the old one is dropped and the young one ages.
    What is still in use moves back to the young one when it is asked for, so at most 2 x `capacity` is kept."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._young: dict[int, tuple[object, Rendered]] = {}
        self._old: dict[int, tuple[object, Rendered]] = {}

    def get(self, element: E, render: Callable[[E], dict[str, Any]]) -> Rendered:
        """What `element` was rendered to; by `render` when it has not been yet."""
        key = id(element)
        found = self._young.get(key)
        if found is not None:
            return found[1]
        found = self._old.get(key)
        if found is None:
            found = (element, rendered(render(element)))
        self._young[key] = found
        self._size += len(found[1][1])
        if self._size > self._capacity:
            self._old, self._young, self._size = self._young, {}, 0
        return found[1]

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())


class SharedSets:
    """Whole sets that were rendered before, by the identity of the tuples that they were rendered from.

    Of each function and option the newest few are kept; a set that turns out equal to the one before it is that one, so
    that nobody looks for a difference.
    """

    def __init__(self, most: int = MOST_SETS) -> None:
        self._most = most
        self._known: OrderedDict[tuple[Any, ...], tuple[tuple[Any, ...], Shared]] = OrderedDict()
        self._newest: dict[tuple[Any, ...], Shared] = {}

    def __call__(
        self, make: Callable[[tuple[Any, ...], O], dict[str, Rendered]], of: tuple[Any, ...], option: O
    ) -> Shared:
        """`make(of, option)`, or what it was for the same tuples."""
        key = (make, option, *map(id, of))
        known = self._known.get(key)
        if known is not None and all(map(is_, known[0], of)):
            self._known.move_to_end(key)
            return known[1]
        made = Shared(make(of, option))
        newest = self._newest.get((make, option))
        if newest is not None and newest == made:
            made = newest
        self._newest[make, option] = made
        self._known[key] = (of, made)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return made
