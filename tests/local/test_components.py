"""Processes that are kept running: started, crashed, stopped at every moment, with what they leave in their group."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import components
from local.components import Component, Components
from mesh.errors import NotFound, Unavailable
from tests.support.waiting import wait_for


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(components, "LONGEST_PAUSE", 0.2)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running = Components([], folder)

    def run(self, *scripts: str) -> Components:
        """Components `c0`, `c1` ...: Python programs with $FOLDER, started."""
        listed = [
            Component(f"c{index}", [sys.executable, "-S", "-c", script], {"FOLDER": str(self.folder)})
            for index, script in enumerate(scripts)
        ]
        self.running = Components(listed, self.folder)
        for component in listed:
            self.running.start(component.name)
        return self.running

    def starts(self) -> int:
        """How often a program has noted its start."""
        file = self.folder / "starts"
        return len(file.read_text()) if file.exists() else 0


NOTE = "import os, sys, time, signal; open(os.environ['FOLDER'] + '/starts', 'a').write('x'); "
STAY = NOTE + "time.sleep(1000)"
CRASH = NOTE + "sys.exit(3)"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    found.running.stop_all()


def pid_of(running: Components, name: str = "c0") -> int:
    return running._running[name].pid


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]


def test_started_twice_runs_once_and_stopped_twice_is_stopped(world: World) -> None:
    running = world.run(STAY)
    running.start("c0")
    wait_for(lambda: world.starts() == 1)
    assert running.states() == {"c0": "running"}
    pid = pid_of(running)
    for _ in range(2):
        running.stop("c0")
        assert running.states() == {"c0": "stopped"}
    assert not alive(pid)
    running.start("c0")
    wait_for(lambda: world.starts() == 2)


def test_what_crashes_is_started_again(world: World) -> None:
    running = world.run(STAY)
    first = pid_of(running)
    for number in range(1, 4):
        wait_for(lambda number=number: world.starts() == number)
        os.kill(pid_of(running), signal.SIGKILL)
    wait_for(lambda: world.starts() == 4)
    assert pid_of(running) != first
    wait_for(lambda: running.states() == {"c0": "running"})


def test_a_crash_loop_slows_down_and_says_that_it_is_restarting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    ticks = threading.Semaphore(0)
    held = threading.Event()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        ticks.release()
        if len(pauses) == 5:
            held.wait(20)

    monkeypatch.setattr(components.time, "sleep", sleep)
    running = world.run(CRASH)
    for _ in range(5):
        assert ticks.acquire(timeout=60)
    assert pauses == [0.05, 0.1, 0.2, 0.2, 0.2]
    assert running.states() == {"c0": "restarting"}
    running.stop("c0")
    held.set()


def test_stopped_while_it_waits_to_be_started_again_it_stays_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "FIRST_PAUSE", 0.3)
    running = world.run(CRASH)
    wait_for(lambda: running.states() == {"c0": "restarting"})
    running.stop("c0")
    threading.Event().wait(0.5)
    assert (world.starts(), running.states()) == (1, {"c0": "stopped"})


def test_stopped_and_started_during_the_pause_it_runs_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "FIRST_PAUSE", 0.3)
    again = NOTE + "time.sleep(0 if os.path.getsize(os.environ['FOLDER'] + '/starts') == 1 else 1000)"
    running = world.run(again)
    wait_for(lambda: running.states() == {"c0": "restarting"})
    running.stop("c0")
    running.start("c0")
    threading.Event().wait(0.6)
    assert world.starts() == 2


def test_one_that_ignores_sigterm_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "GRACE_SECONDS", 0.1)
    running = world.run("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + STAY)
    wait_for(lambda: world.starts() == 1)
    pid = pid_of(running)
    running.stop_all()
    assert not alive(pid)


FORK = (
    "import os\n"
    "if os.fork() == 0:\n    import time; time.sleep(1000)\n"
    "open(os.environ['FOLDER'] + '/starts', 'a').write('x')\n"
)


def group(pgid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == pgid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_children_end_with_it_when_it_is_killed(world: World) -> None:
    running = world.run(FORK + "import time; time.sleep(1000)")
    wait_for(lambda: world.starts() == 1)
    pid = pid_of(running)
    assert len(group(pid)) == 2
    running.stop("c0", now=True)
    wait_for(lambda: group(pid) == [])


def test_children_of_one_that_crashed_do_not_keep_its_ports(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "FIRST_PAUSE", 30.0)
    running = world.run(FORK)
    pid = pid_of(running)
    wait_for(lambda: world.starts() == 1 and running.states() == {"c0": "restarting"})
    wait_for(lambda: group(pid) == [])


def test_all_of_them_end_together(world: World) -> None:
    running = world.run(STAY, STAY, STAY)
    wait_for(lambda: world.starts() == 3)
    pids = [pid_of(running, name) for name in ("c0", "c1", "c2")]
    running.stop_all()
    assert not any(map(alive, pids))
    assert set(running.states().values()) == {"stopped"}


def test_output_goes_to_its_log(world: World) -> None:
    world.run("import sys; print('out', flush=True); print('err', file=sys.stderr); " + STAY)
    wait_for(lambda: world.starts() == 1)
    assert (world.folder / "c0.log").read_text() == "out\nerr\n"


def test_what_cannot_be_started_says_so_and_can_be_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    running = Components([Component("c", [str(program)], {})], tmp_path)
    with pytest.raises(Unavailable, match="the c cannot be started"):
        running.start("c")
    assert running.states() == {"c": "stopped"}
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    running.start("c")
    assert running.states() == {"c": "running"}
    running.stop_all()


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    running = Components([Component("ca", ["true"], {}), Component("webhook", ["true"], {})], tmp_path)
    for act in (running.start, running.stop):
        with pytest.raises(NotFound, match=r"no component 'pilot' \(the control plane's are ca, webhook\)"):
            act("pilot")
