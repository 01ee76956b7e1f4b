"""What is said where a level cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from local.sandbox import PROJECT_ROOT


def run_without_programs(folder: Path, name: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A test run of the file called so, where neither Go nor etcd is installed."""
    lacking = {key: value for key, value in os.environ.items() if key not in ("CI", "HEDDLE_TEST_KUBECONFIG")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/cluster/{name}"],
        cwd=PROJECT_ROOT,
        env=lacking | {"PATH": str(folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_tests_that_cannot_run_are_skipped_and_named(tmp_path: Path) -> None:
    done = run_without_programs(tmp_path, "test_api_server.py")
    assert done.returncode == 0
    assert "NOT COVERED: 5 tests that need api_server" in done.stdout
    assert "etcd is not installed (Debian and Ubuntu: apt-get install etcd-server)" in done.stdout
    assert "test_a_restricted_namespace_refuses_net_admin" in done.stdout


def test_under_ci_they_fail(tmp_path: Path) -> None:
    done = run_without_programs(tmp_path, "test_api_server.py", CI="true")
    assert done.returncode == 1
    assert "5 errors" in done.stdout


def test_what_is_not_done_to_somebodys_cluster_is_skipped_and_named(tmp_path: Path) -> None:
    done = run_without_programs(tmp_path, "test_no_trace.py", HEDDLE_TEST_KUBECONFIG=str(tmp_path / "kubeconfig"))
    assert done.returncode == 0
    assert "NOT COVERED: 2 tests that need cluster_is_ours" in done.stdout
