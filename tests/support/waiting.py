"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

# What takes longer than the first looks is not looked at so often: a look may be a request, and takes its time from it.
_PAUSES = (0.02, 0.1)
_FIRST_LOOKS = 50


def wait_for(condition: Callable[[], bool], looks: int = 2000) -> None:
    """Look every 20 ms, after a second every 100 ms; fail after so many looks."""
    for look in range(looks):
        if condition():
            return
        time.sleep(_PAUSES[look >= _FIRST_LOOKS])
    raise AssertionError("it did not happen")
