"""Which network namespaces of the node to look into, and when. Pure: time comes in.

Nothing is looked into unless a pod of the node waits. A namespace is new for its first seconds, in which its gate
starts: it is looked into many times a second. Later a gate can only come because an image took long or because it is
run again, so that it is looked into ever more rarely; what that adds to the waiting is a small part of what the pod has
waited anyway. One that went wrong is left alone a while.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

NEW_SECONDS = 20.0
NEW_INTERVAL = 0.05
SHORTEST, LONGEST = 1.0, 5.0
FIRST_PENALTY, LONGEST_PENALTY = 0.5, 30.0


class Visit(Enum):
    """How a look into a namespace ended."""

    NOBODY = "nobody"  # no gate asks there
    WRITTEN = "written"  # the rules that a gate asked for are in force
    FAILED = "failed"  # they are not, or what asked is no gate


@dataclass
class _Watched:
    since: float
    due: float
    failures: int = 0
    busy: bool = False


class Schedule:
    """Keeps one entry for each namespace that there is. `now` is in seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._started = False

    def seen(self, present: Iterable[str], now: float) -> None:
        """`present` are all namespaces that there are; those that were not there before count as new, except for the
        first time, when nobody knows how old they are."""
        names = set(present)
        for gone in self._watched.keys() - names:
            del self._watched[gone]
        for name in names - self._watched.keys():
            self._watched[name] = _Watched(now if self._started else now - NEW_SECONDS, now)
        self._started = True

    def due(self, now: float) -> list[str]:
        """The namespaces to look into now, those that wait longest first; each is busy until `visited`."""
        ready = [(each.due, name) for name, each in self._watched.items() if each.due <= now and not each.busy]
        for _, name in ready:
            self._watched[name].busy = True
        return [name for _, name in sorted(ready)]

    def visited(self, name: str, visit: Visit, now: float) -> None:
        """What came of looking into `name`; nothing if it is gone."""
        each = self._watched.get(name)
        if each is None:
            return
        each.busy = False
        each.failures = each.failures + 1 if visit is Visit.FAILED else 0
        each.due = now + interval(now - each.since, each.failures)


def interval(age: float, failures: int) -> float:
    """Seconds until the next look into a namespace of `age` seconds that went wrong `failures` times in a row."""
    if failures:
        return min(LONGEST_PENALTY, FIRST_PENALTY * 2.0 ** min(failures - 1, 16))
    return NEW_INTERVAL if age < NEW_SECONDS else min(LONGEST, max(SHORTEST, age / 20))
