"""The scripts for people: each explains itself, and says clearly when there is no heddle to run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
OF_TRUST = ("rotate-root", "rotate-intermediate", "import-root", "export-bundle", "check-trust")


def run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HEDDLE_STATE": "/nonexistent"}
    return subprocess.run([script, *words], env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", OF_TRUST)
def test_each_explains_itself(name: str) -> None:
    assert os.access(SCRIPTS / name, os.X_OK)
    done = run(SCRIPTS / name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"scripts/{name}" in done.stdout
    assert "Exit codes: 0" in done.stdout
    assert "--dry-run" in done.stdout.partition("Usage: heddle ")[2]


def test_one_says_that_no_mesh_runs() -> None:
    done = run(SCRIPTS / "export-bundle")
    assert done.returncode == 1
    assert done.stderr.startswith("heddle: ")
    assert "Traceback" not in done.stderr


def test_without_a_heddle_it_says_how_to_get_one(tmp_path: Path) -> None:
    for name in ("heddle", "rotate-root"):
        shutil.copy(SCRIPTS / name, tmp_path / name)
    done = run(tmp_path / "rotate-root", "--dry-run")
    assert done.returncode == 1
    assert "There is no heddle" in done.stderr
    assert "make .venv/.ready" in done.stderr
