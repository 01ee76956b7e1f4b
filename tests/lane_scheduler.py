"""Lanes as pytest-xdist schedules them; see `lanes`."""

from __future__ import annotations

from xdist.scheduler import LoadGroupScheduling


class Lanes(LoadGroupScheduling):
    """xdist's scheduling by group, where a file without a group is one."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return scope.partition("::")[0]
