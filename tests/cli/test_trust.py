"""`heddle trust`: a root is brought to a real ca, and the bundle taken from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ca.rotation.documents import fingerprint
from svid.spiffe_bundle import parse_spiffe_bundle
from tests.ca.authorities import Made, cacerts, make
from tests.cli.operated import Operated, operated
from tests.cli.run import heddle
from tests.local.command_server import CommandServer

LATER = datetime.now(UTC) + timedelta(days=3650)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with operated(tmp_path_factory.mktemp("ca")) as process:
        yield process


@pytest.fixture
def asked(mesh: CommandServer, ca: Operated) -> None:
    mesh.operator.answering = ca.operator
    (mesh.state / "ca").symlink_to(ca.state)


def written(directory: Path, files: dict[str, bytes]) -> str:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return str(directory)


def offline() -> tuple[Made, dict[str, bytes]]:
    root = make("a root of one's own", ends=LATER)
    return root, cacerts(make("between", root, path_length=0, ends=LATER), root)


def rotation() -> dict[str, object]:
    found: dict[str, object] = json.loads(heddle("rotate", "status", "-o", "json").out)
    return found


def test_the_bundle_is_taken_elsewhere(ca: Operated, asked: None, tmp_path: Path) -> None:
    assert heddle("trust", "export").out == ca.roots
    jwks = heddle("trust", "export", "--format", "jwks").out
    assert parse_spiffe_bundle(jwks, "cluster.local").roots == (ca.roots,)
    file = tmp_path / "roots.pem"
    assert "would be written" in heddle("trust", "export", "--to", str(file), "--dry-run").err
    assert not file.exists()
    assert f"1 root of cluster.local, bundle 1: written: {file}" in heddle("trust", "export", "--to", str(file)).err
    assert file.read_text() == ca.roots
    assert "there already" in heddle("trust", "export", "--to", str(file)).err
    assert heddle("trust", "export", "--to", str(tmp_path / "none" / "file")).code == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "name a DIRECTORY"),
        (["/no such", "--root", "x"], 2, "name a DIRECTORY"),
        (["/no such"], 1, "there is no directory"),
        (["--root", "/no such"], 1, "cannot be read"),
    ],
)
def test_wrong_usage_of_import(asked: None, words: list[str], code: int, said: str) -> None:
    done = heddle("trust", "import", *words)
    assert (done.code, said in done.err) == (code, True), done.err


def test_everything_that_is_wrong_is_said_and_nothing_written(ca: Operated, asked: None, tmp_path: Path) -> None:
    _, files = offline()
    stranger = make("stranger")
    wrong = written(tmp_path / "wrong", {**files, "ca-key.pem": stranger.key_pem(), "ca-cert.pem": stranger.pem})
    before = (ca.state / "trust.json").read_text()
    done = heddle("trust", "import", wrong, "-y")
    assert done.code == 1
    assert "refused: ca-cert.pem: it is a root of its own" in done.err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has none of root-cert.pem" in heddle("trust", "import", str(empty), "-y").err
    assert (ca.state / "trust.json").read_text() == before


def test_a_root_whose_key_stays_elsewhere_is_rotated_to(ca: Operated, asked: None, tmp_path: Path) -> None:
    root, files = offline()
    place = written(tmp_path / "cacerts", files)
    tried = heddle("trust", "import", place, "--dry-run")
    assert tried.code == 0, tried.err
    assert "the mesh is rotated to it" in tried.out
    assert rotation()["phase"] == "idle"
    asked_first = heddle("trust", "import", place)
    assert (asked_first.code, "-y" in asked_first.err) == (1, True)

    done = heddle("trust", "import", place, "-y", "--window", "2m")
    assert done.code == 0, done.err
    state = rotation()
    assert state["phase"] == "distribute"
    assert fingerprint(root.certificate) in {each["fingerprint"] for each in state["roots"]}  # type: ignore[attr-defined]
    bundle = heddle("trust", "export").out
    assert bundle.count("BEGIN CERTIFICATE") == 2
    assert root.pem.decode() in bundle
    assert "PRIVATE" not in bundle

    again = heddle("trust", "import", place, "-y")
    assert (again.code, "is under way, in phase distribute" in again.out) == (0, True), again.err
    other = make("another root", ends=LATER)
    single = tmp_path / "single"
    single.write_bytes(other.pem)
    key = tmp_path / "key"
    key.write_bytes(other.key_pem(b"open sesame"))
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    words = ("--root", str(single), "--key", str(key), "--key-passphrase-file", str(passphrase), "-y")
    refused = heddle("trust", "import", *words)
    assert (refused.code, "a rotation to another root is under way" in refused.err) == (1, True), refused.err
