"""The state in a directory: made once, replaced only by who has read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ca.store import TRUST_FILE, DirectoryStore, Stored
from mesh.errors import Conflict, MissingPrerequisite


def present(store: DirectoryStore) -> Stored:
    stored = store.read()
    assert stored is not None
    return stored


def test_create_never_overwrites(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "new" / "directory")
    assert store.read() is None
    first = store.create({"a": "1"})
    assert store.create({"a": "2"}) == first == store.read()
    assert first.documents == {"a": "1"}


def test_replace_needs_the_current_version(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    first = store.create({"a": "1"})
    second = store.replace({"a": "2", "b": "x"}, first.version)
    assert present(store) == second
    with pytest.raises(Conflict, match="changed by somebody else"):
        store.replace({"a": "3"}, first.version)
    assert present(store).documents == {"a": "2", "b": "x"}
    assert (tmp_path / TRUST_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [TRUST_FILE]


def test_replace_after_removal(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    first = store.create({"a": "1"})
    (tmp_path / TRUST_FILE).unlink()
    with pytest.raises(Conflict, match="removed"):
        store.replace({"a": "2"}, first.version)


def test_many_processes_count_to_a_hundred(tmp_path: Path) -> None:
    """Each adds one, over and over; not one addition is lost."""
    program = """
import sys
from pathlib import Path
from ca.store import DirectoryStore
from mesh.errors import Conflict
store = DirectoryStore(Path(sys.argv[1]))
done = 0
while done < 25:
    stored = store.read()
    try:
        store.replace({"n": str(int(stored.documents["n"]) + 1)}, stored.version)
    except Conflict:
        continue
    done += 1
"""
    DirectoryStore(tmp_path).create({"n": "0"})
    command = [sys.executable, "-c", program, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert present(DirectoryStore(tmp_path)).documents == {"n": "100"}


def test_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = DirectoryStore(tmp_path / "file")
    for attempt in (store.read, lambda: store.create({}), lambda: store.replace({}, "1")):
        with pytest.raises(MissingPrerequisite, match="cannot be"):
            attempt()
