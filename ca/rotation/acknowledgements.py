"""What the components of the control plane have said of the bundle, in this replica's memory.

They say it again twice a second, to whichever replica they reach: nothing of it is worth keeping, and the replica that
leads asks the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mesh.wire import TrustReport

FORGET_SECONDS = 30.0


class Acknowledgements:
    """By title (`namespace/pod`, or `namespace/account` where there are no pods)."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._said: dict[str, tuple[TrustReport, float]] = {}

    def say(self, title: str, report: TrustReport) -> None:
        """`title` acts upon `report` now."""
        with self._lock:
            self._said[title] = report, self._monotonic()

    def current(self) -> dict[str, tuple[TrustReport, float]]:
        """What was said a moment ago, with the seconds since then."""
        now = self._monotonic()
        with self._lock:
            self._said = {title: said for title, said in self._said.items() if now - said[1] < FORGET_SECONDS}
            return {title: (report, now - at) for title, (report, at) in self._said.items()}
