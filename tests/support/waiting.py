"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], looks: int = 4000) -> None:
    """Look every 20 ms; fail after so many looks."""
    for _ in range(looks):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")
