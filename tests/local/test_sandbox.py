"""The sandbox's promise: whatever happens to the process that started it, nothing of it is left."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import sandbox
from local.sandbox import subordinate_range
from tests.lanes import MACHINE

pytestmark = MACHINE

# Starts a sandbox in which a kubelet runs a pod, says the engine's PID, and waits: the process that will be killed.
OUTER = """
import sys
from pathlib import Path
from local import sandbox
process = sandbox.start([sys.executable, *sys.argv[2:]], Path(sys.argv[1]))
print(process.pid, flush=True)
process.wait()
"""
ENGINE = """
import os, sys, time
from pathlib import Path
from tests.local.scene import Scene, server, script
scene = Scene(Path(sys.argv[1]))
for name in ("a", "b"):
    scene.run(name, server(), script("sleep 1000 & wait", "deaf"))
    scene.until_ready(name)
(scene.state / "up").write_text("")
time.sleep(1000)
"""


def descendants(pid: int) -> list[int]:
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in children] + [pid for child in children for pid in descendants(int(child))]


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="heddle-sandbox-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def links() -> str:
    return subprocess.run(["ip", "-o", "-br", "link"], capture_output=True, text=True).stdout


@pytest.mark.root
@pytest.mark.parametrize("victim", ["starter", "keeper", "engine"])
def test_a_kill_leaves_no_process_namespace_interface_mount_or_rule(state: Path, victim: str) -> None:
    before = (mounts(), links())
    named = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    env = {**os.environ, "PYTHONPATH": str(sandbox.PROJECT_ROOT)}
    starter = subprocess.Popen(
        [sys.executable, "-c", OUTER, str(state), "-c", ENGINE, str(state)], env=env, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    keeper = int(starter.stdout.readline())
    wait_for(state / "up")
    engine = descendants(keeper)[0]
    everything = descendants(starter.pid)
    assert len(everything) >= 6  # keeper, engine, and two processes each in two pods
    handles = [os.pidfd_open(pid) for pid in everything]
    os.kill({"starter": starter.pid, "keeper": keeper, "engine": engine}[victim], signal.SIGKILL)
    starter.wait(timeout=60)
    deadline = time.monotonic() + 120
    # A pidfd becomes readable when its process has ended.
    for handle in handles:
        ended = ended_by(handle, deadline)
        os.close(handle)
        assert ended
    # Interfaces and mounts of the sandbox were never this machine's; with its last process they are nobody's.
    assert (mounts(), links()) == before
    assert (set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()) == named


def ended_by(handle: int, deadline: float) -> bool:
    return bool(select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0])


@pytest.mark.root
def test_sigterm_reaches_the_engine_and_its_exit_code_comes_back(state: Path) -> None:
    program = "import signal, sys; signal.signal(15, lambda *_: sys.exit(42)); print('up', flush=True); signal.pause()"
    process = sandbox.start([sys.executable, "-c", program], state, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 42


@pytest.mark.root
def test_it_is_process_1_with_namespaces_of_its_own(state: Path) -> None:
    kinds = ("pid", "mnt", "net", "ipc", "uts")
    program = f"import os; print(os.getpid(), *(os.readlink(f'/proc/self/ns/{{k}}') for k in {kinds}))"
    process = sandbox.start([sys.executable, "-c", program], state, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=60)
    pid, *namespaces = output.decode().split()
    assert pid == "1"
    assert not {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds} & set(namespaces)


@pytest.mark.root
def test_run_is_private_but_a_state_directory_in_it_is_the_machines() -> None:
    if not os.access("/run", os.W_OK):
        pytest.skip("only root has a state directory directly in /run")
    state = Path(tempfile.mkdtemp(prefix="heddle-sandbox-", dir="/run"))
    try:
        script = f"echo hello > {state}/said; touch /run/private; ls /run"
        process = sandbox.start(["sh", "-c", script], state, stdout=subprocess.PIPE)
        output, _ = process.communicate(timeout=60)
        assert sorted(output.decode().split()) == sorted(["heddle", "netns", "private", state.name])
        assert (state / "said").read_text() == "hello\n"
        assert not Path("/run/private").exists()
    finally:
        shutil.rmtree(state)


@pytest.mark.root
def test_a_program_that_does_not_exist_is_said(state: Path) -> None:
    process = sandbox.start(["/no/such/program"], state, stderr=subprocess.PIPE)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"/no/such/program" in complaint


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("ann:100000:65536\n", 100000),
        ("bob:100000:65536\nann:165536:65536\n", 165536),
        ("ann:100000:1000\nann:300000:65535\n", 300000),
        ("1000:100000:65536\n", 100000),
        ("ann:100000:1000\n", None),
        ("", None),
        ("# a comment\nann:x:y\n", None),
    ],
)
def test_the_range_of_subordinate_ids(text: str, first: int | None) -> None:
    assert subordinate_range(text, "ann", 1000) == first


@given(st.text(alphabet="ab:0123456789\n# "))
def test_no_text_in_subuid_breaks_it(text: str) -> None:
    found = subordinate_range(text, "a", 0)
    assert found is None or found >= 0
