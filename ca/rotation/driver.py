"""Drives a rotation: looks twice a second whether the next phase may begin, in the one replica that leads.

It keeps nothing in memory that matters: whoever leads next reads the same state and goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from ca.rotation.desk import Desk
from ca.rotation.observe import Observer
from mesh.errors import HeddleError

EVERY_SECONDS = 0.5

log = structlog.get_logger("ca")


class Driver:
    """`leads` says whether this replica may act now."""

    def __init__(self, desk: Desk, observer: Observer, leads: Callable[[], bool]) -> None:
        self._desk, self._observer, self._leads = desk, observer, leads
        self._stopping = threading.Event()
        self._trouble = ""

    def start(self) -> None:
        """Drive in a daemon thread until `stop`."""
        threading.Thread(target=self._run, name="rotation", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            try:
                if self._desk.running and self._leads():
                    self._desk.step(self._observer.members)
                self._trouble = ""
            except HeddleError as error:
                if str(error) != self._trouble:
                    log.warning("the rotation cannot be looked after, will try again", error=str(error))
                self._trouble = str(error)
            except Exception:  # the next look may go better
                log.exception("looking after the rotation failed")
