"""Keeping what was computed for as long as its inputs stay.

Every function here is pure: a result is found again only by the very arguments that made it, so that no change can be
missed. Arguments are compared by identity where they are objects of a snapshot (which hash by identity) and by value
where they are texts, numbers or frozen values. Nothing is kept longer than until the next build of its scope, so that
memory follows the mesh, not its history.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any, TypeVar, cast

T = TypeVar("T")
K = TypeVar("K")

MOST_SCOPES = 1024
"""Scopes kept at once: some of the index, five for each client namespace, one for each gateway. The longest unused
goes first."""


class Memo:
    """Results of the last build of a scope, by function and arguments; what a build does not ask for is forgotten."""

    __slots__ = ("_build", "_entries")

    def __init__(self) -> None:
        self._entries: dict[Any, list[Any]] = {}
        self._build = 0

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """`function(*arguments)`, or what it was the last time. All arguments must hash."""
        key = (function, *arguments)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = [self._build, function(*arguments)]
        else:
            entry[0] = self._build
        return cast(T, entry[1])

    def begin(self) -> None:
        self._build += 1

    def end(self) -> None:
        """Forget what was not asked for since `begin`."""
        unused = [key for key, entry in self._entries.items() if entry[0] != self._build]
        for key in unused:
            del self._entries[key]


@dataclass(frozen=True, slots=True)
class _Kept:
    inputs: tuple[Any, ...]
    memo: Memo
    result: Any


class Scopes:
    """The last build of each scope: given again while all inputs are the same, otherwise its memo is reused."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, _Kept] = OrderedDict()

    def build(self, scope: Any, inputs: tuple[Any, ...], make: Callable[[Memo, T | None], T]) -> T:
        """`make(memo, previous)`; `previous` is the scope's last result, from which `make` may take parts over."""
        last = self._kept.get(scope)
        if last is not None:
            self._kept.move_to_end(scope)
            if len(last.inputs) == len(inputs) and all(map(_same, last.inputs, inputs)):
                return cast(T, last.result)
        memo = last.memo if last else Memo()
        memo.begin()
        result = make(memo, last.result if last else None)
        memo.end()
        self._kept[scope] = _Kept(inputs, memo, result)
        while len(self._kept) > MOST_SCOPES:
            self._kept.popitem(last=False)
        return result


def _same(one: Any, other: Any) -> bool:
    """The same object; or equal, where that is a matter of a few comparisons (not for mappings)."""
    return one is other or (isinstance(one, tuple | str | bool) and bool(one == other))


def kept(before: tuple[T, ...], now: tuple[T, ...]) -> tuple[T, ...]:
    """`before`, if it has the very same elements as `now`."""
    return before if len(before) == len(now) and all(map(is_, before, now)) else now


def changed_keys(before: Mapping[K, Any], now: Mapping[K, Any]) -> set[K]:
    """Keys whose values are not the same objects in both."""
    if before is now:
        return set()
    if len(before) == len(now) and all(map(is_, before, now)):  # a copy with some values replaced: no key is hashed
        return {key for key, old, new in zip(now, before.values(), now.values(), strict=True) if old is not new}
    return {key for key, value in now.items() if before.get(key) is not value} | {k for k in before if k not in now}
