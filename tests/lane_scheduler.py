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
            # Of processes that have no lane to begin with the last are ended.
            self.assigned_work = dict(sorted(self.assigned_work.items(), key=lambda each: _at_leisure(each[0])))
        super().schedule()

    def _assign_work_unit(self, node: Any) -> None:
        """The next lane; to the process at leisure, the next of those that are for it, if any is left."""
        if _at_leisure(node):
            lane = next((each for kind in lanes.AT_LEISURE for each in self.workqueue if each.startswith(kind)), None)
            if lane is None:
                node.shutdown()
                return
            self.workqueue.move_to_end(lane, last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        return self._lanes[nodeid.partition("::")[0]]


def _at_leisure(node: Any) -> bool:
    return lanes.at_leisure(node.gateway.id)
