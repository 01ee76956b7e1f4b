"""What was rendered before, by the identity of the element that it was rendered from.

Elements of plans are immutable and shared between plans, so the same object always renders to the same bytes. Hashing
their values instead would cost more than rendering: the identity is the key, and the element is kept beside it, so that
no other can take its address. Nothing is lost but time when an equal element is rendered again.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar

import orjson

E = TypeVar("E")
Rendered = tuple[str, bytes]
"""(version, bytes): the version is a short hash of the bytes."""

_DIGEST_BYTES = 8


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
