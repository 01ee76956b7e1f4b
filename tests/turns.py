"""When several processes share a run: which tests have the machine to themselves.

Two hundred requests a second through a cluster take what two processors have, and the tests beside them went at a tenth
of their speed, until one had waited for five minutes and failed. Only the process at leisure goes on beside them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ALONE = "loads"
"""The fixture of the tests that are alone, of tests/cluster/test_bookinfo.py."""


class Turns:
    """A plugin for one process of a run, all of which know the directory `shared`."""

    def __init__(self, shared: Path) -> None:
        self._gate, self._machine = shared / "gate.lock", shared / "machine.lock"
        self._alone: ExitStack | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before the plugin that limits a test's time
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        if not _alone(item):
            with self._turn(fcntl.LOCK_SH):
                return (yield)
        if self._alone is None:
            self._alone = ExitStack()
            self._alone.enter_context(self._turn(fcntl.LOCK_EX))
        try:
            return (yield)
        finally:
            if nextitem is None or not _alone(nextitem):  # the load goes on from one test to the next
                self._alone.close()
                self._alone = None

    @contextmanager
    def _turn(self, how: int) -> Generator[None]:
        """Whoever waits to be alone keeps the others from starting: else there would always be somebody."""
        with ExitStack() as held:
            with _locked(self._gate, fcntl.LOCK_EX):
                held.enter_context(_locked(self._machine, how))
            yield


def _alone(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and ALONE in item.fixturenames


@contextmanager
def _locked(path: Path, how: int) -> Generator[None]:
    """The kernel takes it back from a process that dies."""
    with path.open("a") as file:
        fcntl.flock(file, how)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closed it is not, where a fork of this process is left
