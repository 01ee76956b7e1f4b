"""Which tests follow one another in one process when a run has several (`pytest -n`), and in which order they start.

Tests of one lane share what is made once a run, or must not be at work at the same time. The lane `machine` has all
that load the machine with a cluster or a mesh, and all that look at its interfaces, mounts and rules: in it one follows
the other, so that a test of traffic without a single failure never has to share two processors with another cluster.
Which files are in it follows from the fixtures that they use, or from their own `xdist_group` mark; every other file is
a lane of its own. Lanes that take longest come first, so that no process is left alone with one at the end.
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

# The lane of what is made once a run and keeps the machine busy. While other lanes are at work, what needs it least.
MACHINE_LANE = "machine"
ORDER_OF_FIXTURES = ("api_server", "", "world", "bookinfo", "cluster")  # "": files of the lane by their own mark

# Lanes, files or folders, in the order in which they start; what is not here starts after these.
FIRST = (
    MACHINE_LANE,
    "tests/cluster",
    "tests/local",
    "tests/ca",
    "tests/discovery",
    "tests/fuzz",
)

# The mark of files whose tests add to this machine's interfaces, mounts and rules, or look whether anything did.
MACHINE = pytest.mark.xdist_group(MACHINE_LANE)

# One for the lane `machine`; in the others, tests wait about as much as they compute.
PROCESSES_BESIDES = 1
MOST_PROCESSES = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.lane_scheduler import Lanes  # a run in one process does without xdist

    config.option.loadscopereorder = False  # by number of tests
    return Lanes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `pytest -n auto` starts."""
    return min(MOST_PROCESSES, PROCESSES_BESIDES + len(os.sched_getaffinity(0)))


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
        lanes[_file(item)] = mark.args[0] if mark else MACHINE_LANE if shared[_file(item)] else _file(item)
    items.sort(key=lambda item: (_place(lanes[_file(item)]), _turn(shared[_file(item)])))
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


def _turn(fixtures: set[str]) -> int:
    """When a file's tests come in the lane `machine`: with the last of the fixtures that they use."""
    return max((ORDER_OF_FIXTURES.index(name) for name in fixtures or {""} if name in ORDER_OF_FIXTURES), default=0)
