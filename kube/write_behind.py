"""Writes to the API server that nobody waits for: the newest of each key, one after the other, at a bounded pace.

While the API server does not answer, what is queued stays queued and is tried again with growing pauses. What it
refuses is dropped and told, because sending the same again cannot help; but not at once where it says that it does not
know the place or our rights: in its first seconds it says so of everything. One thread, so that two writes of one key
never overlap.
"""

from __future__ import annotations

import random as _random
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from kube.source import backoff
from mesh.errors import Busy, HeddleError, Unavailable

MOST_TRIES = 8  # in 11 to 23 seconds, when nothing else succeeds
_PASSING = (401, 403, 404)

Item = TypeVar("Item")

log = structlog.get_logger("kube")


@dataclass(slots=True)
class Counts:
    """What became of the items: `superseded` by a newer one of the same key, `dropped` because the queue was full."""

    written: int = 0
    superseded: int = 0
    dropped: int = 0
    refused: int = 0
    retried: int = 0


class WriteBehind(Generic[Item]):
    """`write(item)` makes one item so at the API server, and may be called again with the same.

    `limit` bounds the keys that wait, `per_second` the writes; `pause` says how many seconds follow so many failures.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Item], None],
        *,
        limit: int,
        per_second: float,
        pause: Callable[[int, float], float] = backoff,
        random: Callable[[], float] = _random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._write = write
        self._limit = limit
        self._interval = 1.0 / per_second
        self._backoff, self._random, self._monotonic = pause, random, monotonic
        self._waiting: dict[Hashable, Item] = {}
        self._writing = 0
        self._changed = threading.Condition()
        self._stop_at: float | None = None
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._tries: dict[Hashable, int] = {}  # of those that were refused in a way that may pass
        self.counts = Counts()

    def start(self) -> None:
        """Write in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name=f"write-{self._name}", daemon=True)
        self._thread.start()

    def offer(self, key: Hashable, item: Item) -> bool:
        """Queue `item`, in the place of one of the same key that still waits. False when the queue is full."""
        with self._changed:
            if key in self._waiting:
                self.counts.superseded += 1
            elif len(self._waiting) >= self._limit or self._stop_at is not None:
                self.counts.dropped += 1
                return False
            self._waiting[key] = item
            self._changed.notify()
            return True

    def __len__(self) -> int:
        """What is not written yet, that which is on its way counted."""
        return len(self._waiting) + self._writing

    def stop(self, seconds: float = 0.0) -> int:
        """Take nothing more, write what waits for so many seconds at most; how many are left unwritten."""
        with self._changed:
            self._stop_at = self._monotonic() + seconds
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds + 1.0)
        return len(self._waiting)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            key, item = taken
            began = self._monotonic()
            done = self._done(key, item)
            self._writing = 0
            if done:
                self._failures = 0
                self._pause(self._interval - (self._monotonic() - began))
            else:
                self._failures += 1
                self._pause(self._backoff(self._failures, self._random()))

    def _take(self) -> tuple[Hashable, Item] | None:
        with self._changed:
            while True:
                if self._stop_at is not None and (not self._waiting or self._monotonic() >= self._stop_at):
                    return None
                if self._waiting:
                    key = next(iter(self._waiting))
                    self._writing = 1
                    return key, self._waiting.pop(key)
                self._changed.wait()

    def _done(self, key: Hashable, item: Item) -> bool:
        """Write one; whether the next may follow at once."""
        try:
            self._write(item)
            self.counts.written += 1
            self._tries.pop(key, None)
        except HeddleError as error:
            if self._may_pass(key, error):
                self._again(key, item, error)
                return False
            self.counts.refused += 1
            log.warning("not written", what=self._name, key=str(key), error=str(error))
        except Exception:  # a bug on one item must not end the thread
            self.counts.refused += 1
            log.exception("not written", what=self._name, key=str(key))
        return True

    def _may_pass(self, key: Hashable, error: HeddleError) -> bool:
        if error.status not in _PASSING:
            return isinstance(error, Unavailable | Busy)
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        if tries < MOST_TRIES:
            return True
        del self._tries[key]
        return False

    def _again(self, key: Hashable, item: Item, error: HeddleError) -> None:
        if self._failures == 0:
            log.warning("cannot be written now, will try again", what=self._name, error=str(error))
        self.counts.retried += 1
        with self._changed:
            self._waiting.setdefault(key, item)

    def _pause(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        until = self._monotonic() + seconds
        with self._changed:
            while (left := until - self._monotonic()) > 0:
                if self._stop_at is not None:
                    left = min(left, self._stop_at - self._monotonic())
                    if left <= 0:
                        return
                    until = min(until, self._stop_at)
                    self._changed.wait(left)
                else:
                    # Not on every offer: only `stop` needs to wake it, and offers must stay cheap.
                    self._changed.wait(min(left, 0.5))
