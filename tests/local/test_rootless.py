"""The engine without root: as a throw-away user, in a user namespace, with a copy of what it needs.

When these tests do not run as root, every other test here is rootless already.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from local.sandbox import PROJECT_ROOT

NEEDED_PACKAGES = (
    *("dns", "structlog", "yaml", "envoy"),  # of the engine
    *("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging"),  # of the files with the tests
)
TESTS = (
    ("test_pods_network.py", "test_pods_reach_each_other_directly_by_cluster_ip_and_by_name"),
    ("test_pods_containers.py", "test_user_groups_capabilities_and_no_new_privs_are_real"),
    ("test_pods_containers.py", "test_the_machine_is_visible_and_cannot_be_written"),
    ("test_pods_containers.py", "test_a_read_only_root_leaves_volumes_and_shm_writable"),
    ("test_pods_volumes.py", "test_a_token_is_for_the_pods_user_alone_and_is_replaced_before_it_expires"),
)
# What @in_sandbox does outside, without pytest.
CALL = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("rootless_test", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
getattr(module, sys.argv[2])()
"""
# setpriv still has root's rights when it starts a program, so only what that program starts tells.
PROBE = "import subprocess, sys; sys.exit(sys.version_info < (3, 11) or subprocess.call([sys.executable, '-c', '']))"
CHECK = "from local import prerequisites; print(*prerequisites.check(), sep='\\n')"


@pytest.fixture(scope="module")
def user() -> Iterator[str]:
    """A new user with subordinate ids, who is removed again."""
    if os.geteuid() != 0:
        pytest.skip("this is not root: all tests of the engine are rootless already")
    missing = [program for program in ("useradd", "newuidmap", "setpriv") if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install passwd uidmap util-linux)")
    name = f"heddle-{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", name], check=True)
    try:
        ids = ["--add-subuids", "700000-765535", "--add-subgids", "700000-765535"]
        subprocess.run(["usermod", *ids, name], check=True)
        yield name
    finally:
        subprocess.run(["userdel", name], check=True)


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """What the engine needs, where everybody may read it: the checkout may be below a private home directory."""
    folder = Path(tempfile.mkdtemp(prefix="heddle-rootless-"))
    ignore = shutil.ignore_patterns("__pycache__", "_bin")  # Envoy itself is not run here
    for name in ("local", "mesh", "tests/local"):
        shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=ignore)
    for name in NEEDED_PACKAGES:
        spec = find_spec(name)
        assert spec is not None, name
        if spec.submodule_search_locations:
            shutil.copytree(next(iter(spec.submodule_search_locations)), folder / name, ignore=ignore)
        else:
            shutil.copy(str(spec.origin), folder)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    yield folder
    shutil.rmtree(folder)


def run_as(user: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as the user, with the copy alone; a Python that the user may execute."""
    env = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    become = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [*become, python, "-c", PROBE]
        try:
            usable = subprocess.run(probe, env=env, cwd="/", capture_output=True).returncode == 0
        except OSError:
            continue
        if usable:
            return subprocess.run(
                [*become, python, *arguments], env=env, cwd=folder, capture_output=True, text=True, timeout=200
            )
    pytest.skip("no Python 3.11 or newer outside private directories for another user to execute")


@pytest.mark.root
def test_nothing_is_missing_for_a_user_with_subordinate_ids(user: str, copy: Path) -> None:
    done = run_as(user, copy, "-c", CHECK)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.root
@pytest.mark.parametrize(("file", "test"), TESTS, ids=[test for _, test in TESTS])
def test_as_a_user(user: str, copy: Path, file: str, test: str) -> None:
    done = run_as(user, copy, "-c", CALL, str(copy / "tests" / "local" / file), test)
    assert done.returncode == 0, done.stderr


@pytest.mark.root
def test_a_user_without_subordinate_ids_is_told_the_command(copy: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    done = run_as("nobody", copy, "-c", CHECK)
    assert "user nobody has no range of 65535 subordinate ids in /etc/subuid" in done.stdout
    assert "usermod --add-subuids" in done.stdout
