"""Which tests follow one another in one process when a run has several (`pytest -n`), and in which order they start.

Tests of one lane share what is made once a run: a cluster, a mesh, an API server. Which lane a test is in follows from
the fixtures that its file uses, or from the file's own `xdist_group` mark; a file that neither applies to is a lane of
its own. Lanes that take longest come first, so that no process is left alone with one at the end.
"""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from local import linux

# Lanes, files or folders, in the order in which they start; what is not here starts after these.
FIRST = (
    "cluster",
    "world",
    "api_server",
    "tests/cluster",
    "bookinfo",
    "machine",
    "tests/local",
    "tests/ca",
    "tests/discovery",
)

# The mark of files whose tests add to this machine's interfaces, mounts and rules, or look whether anything did.
MACHINE = pytest.mark.xdist_group("machine")

# Tests wait more than they compute: this many processes keep one processor busy.
PROCESSES_PER_PROCESSOR = 2
MOST_PROCESSES = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.lane_scheduler import Lanes  # a run in one process does without xdist

    config.option.loadscopereorder = False  # by number of tests
    return Lanes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `pytest -n auto` starts."""
    return min(MOST_PROCESSES, PROCESSES_PER_PROCESSOR * len(os.sched_getaffinity(0)))


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        linux.die_with_parent()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In each process of a run that has several: the lanes in their order, and in them the tests in theirs."""
    if not hasattr(config, "workerinput"):
        return
    shared: dict[str, set[str]] = {}
    for item in items:
        shared.setdefault(_file(item), set()).update(_shared_fixtures(item))
    lanes: dict[str, str] = {}
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        fixtures = shared[_file(item)]
        lanes[_file(item)] = mark.args[0] if mark else min(fixtures, key=_place) if fixtures else _file(item)
    items.sort(key=lambda item: _place(lanes[_file(item)]))
    # All processes write the same; the one that schedules reads it before any test runs.
    target = written(config.workerinput["testrunuid"])
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(lanes))
    unfinished.replace(target)


def written(run: str) -> Path:
    """Where the lane of each file is written for the run called so."""
    return Path(tempfile.gettempdir(), f"heddle-lanes-{run}.json")


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _shared_fixtures(item: pytest.Item) -> set[str]:
    """The project's own fixtures that the test uses and that run once for a process's tests: those with an end."""
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    return {
        name
        for name, (*_, chosen) in known.items()
        if chosen.scope == "session"
        and chosen.func.__module__.startswith("tests.")
        and inspect.isgeneratorfunction(chosen.func)
    }


def _place(lane: str) -> int:
    """When a lane, or the lane of a test's file, starts."""
    return next((number for number, name in enumerate(FIRST) if lane.startswith(name)), len(FIRST))
