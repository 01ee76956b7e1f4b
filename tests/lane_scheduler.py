"""Lanes as pytest-xdist schedules them; see `lanes`."""

from __future__ import annotations

import json
from typing import Any

from xdist.scheduler import LoadScopeScheduling

from tests import lanes


class Lanes(LoadScopeScheduling):
    """A scope is a lane. Which file is in which, the processes that collect the tests have written down.

    xdist's own scheduling by group tells it in the tests' names, which pytest 9.2 does not let it change.
    """

    _lanes: dict[str, str]

    def add_node(self, node: Any) -> None:
        self._written = lanes.written(node.workerinput["testrunuid"])
        super().add_node(node)

    def schedule(self) -> None:
        if self.collection is None:
            self._lanes = json.loads(self._written.read_text())
            self._written.unlink()
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._lanes[nodeid.partition("::")[0]]
