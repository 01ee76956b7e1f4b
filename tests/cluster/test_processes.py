"""The keeper: what is started through it ends with the test run, whatever the run leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from local.sandbox import PROJECT_ROOT
from tests.cluster import cache, traces
from tests.cluster.processes import ComponentFailed, Processes
from tests.support.waiting import wait_for

OWNER = """
import os, signal, sys, time
from tests.cluster.processes import Processes
processes = Processes(isolate=False)
processes.start("sleep", ["sleep", "600"])
print(processes.state.name, flush=True)
if os.fork() == 0:
    time.sleep(20)  # it holds all that its parent had open
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_copy_of_the_run_does_not_keep_it_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        run = owner.stdout.readline().strip()
        assert owner.wait() == -signal.SIGKILL
    wait_for(lambda: not traces.processes_of(run) and not list(cache.directory("runs").glob(f"{run}*")))


def test_a_component_that_ends_is_told_of_with_the_end_of_its_log() -> None:
    processes = Processes(isolate=False)
    try:
        processes.start("broken", ["sh", "-c", "echo no such flag >&2; exit 3"])
        wait_for(lambda: processes.exit_code("broken") is not None)
        with pytest.raises(ComponentFailed, match="broken ended with code 3; its log ends:\nno such flag"):
            processes.check()
    finally:
        processes.close()


def test_a_program_that_is_not_there_is_told_of_and_the_others_go_on() -> None:
    processes = Processes(isolate=False)
    try:
        processes.start("sleep", ["sleep", "600"])
        with pytest.raises(ComponentFailed, match="no-such-program"):
            processes.start("missing", ["no-such-program"])
        processes.signal("sleep", signal.SIGTERM)
        wait_for(lambda: processes.exit_code("sleep") == -signal.SIGTERM)
    finally:
        processes.close()
