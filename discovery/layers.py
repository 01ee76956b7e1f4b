"""Sets of resources in two layers: one that many proxies share, and what one proxy has of its own over it. Pure.

With a thousand services, the sets of two proxies differ in a handful of resources. Held and compared in layers, the
large one is stored once, and the difference between its versions is worked out once for all proxies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

Resource = tuple[str, bytes]
"""Version (a hash of the bytes) and the resource as JSON."""
Entries = Mapping[str, Resource]
"""The resources of one type, by name."""

REMEMBERED = 64
"""Differences of shared sets that are remembered: some types, for some namespaces and one or two changes back."""


class Shared(dict[str, Resource]):
    """A set that many proxies have. Never changed once it is made."""

    __slots__ = ()


class Layered(Mapping[str, Resource]):
    """`own` over `shared`. Neither is ever changed."""

    __slots__ = ("own", "shared")

    def __init__(self, shared: Shared, own: Entries) -> None:
        self.shared, self.own = shared, own

    def __getitem__(self, name: str) -> Resource:
        found = self.own.get(name)
        return self.shared[name] if found is None else found

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in self.shared if name not in self.own)

    def __len__(self) -> int:
        return len(self.shared) + sum(name not in self.shared for name in self.own)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Layered) and other.shared is self.shared:
            return self.own == other.own
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]


def layered(shared: Shared, own: Entries) -> Entries:
    """Both, as simply as can be."""
    if not own:
        return shared
    return Layered(shared, own) if shared else own


class Changes(NamedTuple):
    """What is new or other, and the names that are no more, sorted."""

    changed: Entries
    removed: tuple[str, ...]


NOTHING = Changes({}, ())
_NO_ENTRIES: Entries = {}


class Comparison:
    """Compares sets, and remembers what it found of shared ones."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._known: OrderedDict[tuple[int, int], tuple[Entries, Entries, Changes]] = OrderedDict()

    def __call__(self, have: Entries, want: Entries) -> Changes:
        """What turns `have` into `want`."""
        if have is want:
            return NOTHING
        have_shared, have_own = _split(have)
        want_shared, want_own = _split(want)
        if have_shared is None or want_shared is None:
            return _compared(have, want)
        found = NOTHING if have_shared is want_shared else self._shared(have_shared, want_shared)
        names = have_own.keys() | want_own.keys()
        if not names:
            return found
        changed = {name: resource for name, resource in found.changed.items() if name not in names}
        removed = {name for name in found.removed if name not in names}
        for name in names:
            had, wanted = have.get(name), want.get(name)
            if wanted is None:
                removed.add(name)
            elif had is None or had[0] != wanted[0]:
                changed[name] = wanted
        return Changes(changed, tuple(sorted(removed)))

    def _shared(self, have: Shared, want: Shared) -> Changes:
        key = (id(have), id(want))
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known[2]
        found = _compared(have, want)
        self._known[key] = (have, want, found)  # held, so that no other set can take their addresses
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return found


def _split(entries: Entries) -> tuple[Shared | None, Entries]:
    if isinstance(entries, Layered):
        return entries.shared, entries.own
    return (entries, _NO_ENTRIES) if isinstance(entries, Shared) else (None, entries)


def _compared(have: Entries, want: Entries) -> Changes:
    changed = {
        name: resource
        for name, resource in want.items()
        if (had := have.get(name)) is not resource and (had is None or had[0] != resource[0])
    }
    removed: tuple[str, ...] = ()
    if changed or len(have) != len(want):
        removed = tuple(sorted(name for name in have if name not in want))
    return Changes(changed, removed)
