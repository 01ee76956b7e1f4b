"""How many bytes of answers may be on their way at once.

When all proxies connect at the same time, each answer is some megabytes, and TLS sends them one after the other:
encoded all at once, they would only lie in memory. So an answer is encoded when there is room for it. A client that
does not read keeps its room until its write times out; the others pass it after `patience`.
"""

from __future__ import annotations

from collections.abc import Callable

from discovery.hub import Signal


class Gate:
    """Room for `limit` bytes. An answer that alone is larger goes when nothing else is on its way."""

    def __init__(self, limit: int, patience: float, clock: Callable[[], float]) -> None:
        self._limit, self._patience, self._clock = limit, patience, clock
        self._under_way = 0
        self._left = Signal()

    @property
    def under_way(self) -> int:
        return self._under_way

    def enter(self, size: int) -> Callable[[], None]:
        """Wait for room; call the result, once, when the answer has gone out or failed to."""
        deadline = self._clock() + self._patience
        while self._under_way and self._under_way + size > self._limit and self._clock() < deadline:
            self._left.wait(deadline - self._clock())
        self._under_way += size

        def leave() -> None:
            self._under_way -= size
            self._left.notify()

        return leave
