"""Which tests follow one another in one process when a run has several (`pytest -n`), and in which order they start.

Tests of one lane share what is made once a run, or must not be at work at the same time. All that use the cluster are a
lane, and all that use a local mesh: which they are follows from the fixtures that they use. Files that look at this
machine's own interfaces, mounts and rules, or change them, say that they are of the lane `machine`. Every other file is
a lane of its own. The longest come first: the cluster's tests of traffic without a single failure, last in their lane,
take half of two processors, and what runs beside them gets the rest.

What a lane shares ends with it: a mesh that nobody asks any more still takes its part of the processors.

The last process of `-n auto` is for what the others leave of the processors while they wait. It has the lanes that
only compute, at a tenth of the others' priority: they lose next to nothing to it, and nothing in it waits for time.
"""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from local import linux
from tests.cluster.fixtures import EXISTING
from tests.turns import Turns

# Of the fixtures that are there once a process: the lane of the files that use one. Others, of which each process may
# well have one of its own, as an API server is there in seconds, say nothing about lanes.
LANES_OF_FIXTURES = {"cluster": "cluster", "world": "meshes", "bookinfo": "meshes", "install_server": "installs"}

# Lanes, files or folders, in the order in which they start, and files in the order in which they come in their lane;
# what is not here comes after these.
FIRST = (
    "meshes",
    "cluster",
    "installs",
    "tests/cluster",
    "tests/install",
    "machine",
    "tests/local",
    "tests/ca",
    "tests/discovery",
    "tests/fuzz",
)
LAST_IN_LANE = ("tests/e2e/", "tests/cluster/test_bookinfo.py")

# What only computes, or may wait for the processor as long as it takes: for the process at leisure, in this order.
AT_LEISURE = (
    "tests/fuzz",
    "tests/test_types.py",
    "tests/ca/rotation/test_books.py",
    "tests/ca/rotation/test_machine.py",
    "tests/ca/rotation/test_members.py",
    "tests/discovery/envoy",
    "tests/discovery/plan",
    "tests/discovery/explain",
    "tests/discovery/compare",
    "tests/mesh",
    "tests/webhook/test_properties.py",
    "tests/svid",
)

# The mark of files whose tests add to this machine's interfaces, mounts and rules, or look whether anything did.
MACHINE = pytest.mark.xdist_group("machine")

# Tests wait about as much as they compute. With one equal process more, everything takes longer than tests wait for it.
PROCESSES_BESIDES = 1
MOST_PROCESSES = 8

# Of the process at leisure: a weight of 110 beside 1024 (sched(7); enough for what is in it to go on at all).
NICE = 10
LEISURELY = pytest.mark.timeout(1800)
"""For its tests: beside the builds of a first run they get next to nothing for a quarter of an hour."""

SHARED = pytest.StashKey[dict[str, set[str]]]()
"""The shared fixtures of each file."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.lane_scheduler import Lanes  # a run in one process does without xdist

    config.option.loadscopereorder = False  # by number of tests
    return Lanes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `pytest -n auto` starts: so many of equals, and one at leisure."""
    return _equals() + 1


def at_leisure(worker: str) -> bool:
    """Whether a process, `gw0` the first, computes only while the others wait."""
    return int(worker.removeprefix("gw")) >= _equals()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        return
    linux.die_with_parent()
    if at_leisure(config.workerinput["workerid"]):
        _yield_to_the_others()
    else:
        config.pluginmanager.register(Turns(Path(config.option.basetemp).parent))


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
        lanes[_file(item)] = mark.args[0] if mark else _lane(_file(item), shared[_file(item)])
    if at_leisure(config.workerinput["workerid"]):
        for item in items:
            item.add_marker(LEISURELY, append=False)
    items.sort(key=lambda item: (_place(lanes[_file(item)]), _file(item).startswith(LAST_IN_LANE)))
    config.stash[SHARED] = shared
    # All processes write the same; the one that schedules reads it before any test runs.
    target = written(config.workerinput["testrunuid"])
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(lanes))
    unfinished.replace(target)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """In each process of a run that has several: end what no test of the next file shares with this one's."""
    yield
    shared = item.config.stash.get(SHARED, {})
    following = shared.get(_file(nextitem), set()) if nextitem else set()
    for name in shared.get(_file(item), set()) - following:
        for definition in item.session._fixturemanager.getfixturedefs(name, item) or ():
            definition.finish(item._request)  # type: ignore[attr-defined]


def written(run: str) -> Path:
    """Where the lane of each file is written for the run called so."""
    return Path(tempfile.gettempdir(), f"heddle-lanes-{run}.json")


def _equals() -> int:
    return min(MOST_PROCESSES, PROCESSES_BESIDES + len(os.sched_getaffinity(0)))


def _yield_to_the_others() -> None:
    """Where the kernel groups processes by session, it does so by the group's niceness instead of a process's own."""
    os.nice(NICE)
    with suppress(PermissionError):  # it has a session already
        os.setsid()
        with suppress(OSError):  # no such groups
            Path("/proc/self/autogroup").write_text(str(NICE))


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


def _lane(file: str, fixtures: set[str]) -> str:
    """That of a file without a mark, whose tests use these."""
    if EXISTING in os.environ and (file.startswith("tests/cluster/") or "api_server" in fixtures):
        return "cluster"  # all of them have the same API server then
    return next((LANES_OF_FIXTURES[name] for name in sorted(fixtures & LANES_OF_FIXTURES.keys())), file)


def _place(lane: str) -> int:
    """When a lane starts."""
    return next((number for number, name in enumerate(FIRST) if lane.startswith(name)), len(FIRST))
