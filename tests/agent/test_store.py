"""The last good configuration and the SVID on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from agent.bundle import Part
from agent.store import Store, is_in_memory
from mesh.identity import Identity
from mesh.wire import ResourceType
from tests.agent.control_plane import Authority

WANTED = {
    ResourceType.CLUSTERS: {'a"b': Part("v1", b'{"name":"a\\"b"}')},
    ResourceType.VIRTUAL_HOSTS: {},
    ResourceType.SECRETS: {"kubernetes://x": Part("v2", b'{"name":"x"}')},
}
SVID = Authority().material(Identity("cluster.local", "default", "reviews"))


def store(directory: Path, *, keeps_secrets: bool) -> Store:
    made = Store(str(directory))
    made.keeps_secrets = keeps_secrets
    return made


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    kept = store(tmp_path, keeps_secrets=True)
    assert kept.load_config() is None
    kept.save_config(WANTED)
    kept.save_svid(SVID)
    assert kept.load_config() == WANTED
    assert kept.load_svid() == SVID
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "svid.json"]


def test_no_key_reaches_a_disk(tmp_path: Path) -> None:
    kept = store(tmp_path, keeps_secrets=False)
    kept.save_config(WANTED)
    kept.save_svid(SVID)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert b"kubernetes" not in (tmp_path / "config.json").read_bytes()
    assert kept.load_svid() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":2}', b'{"format":1,"resources":{"x":{}}}', b"\xff"])
def test_a_file_that_cannot_be_read_is_no_reason_not_to_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "svid.json").write_bytes(content)
    kept = store(tmp_path, keeps_secrets=True)
    assert kept.load_config() is None
    assert kept.load_svid() is None


@pytest.mark.parametrize(
    ("directory", "expected"),
    [("/", False), ("/data", True), ("/data/x", True), ("/data/x/on disk", False), ("/database", False)],
)
def test_memory_is_told_by_the_mount_that_covers_the_directory(directory: str, expected: bool) -> None:
    mounts = """\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:30 / /data rw,nosuid shared:7 - tmpfs tmpfs rw
23 22 8:1 /x /data/x/on\\040disk rw - ext4 /dev/sda1 rw
"""
    assert is_in_memory(directory, mounts) is expected
