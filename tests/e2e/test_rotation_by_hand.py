"""An operator brings a root of their own, with the scripts for people, while bookinfo is in use."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ca.rotation.documents import fingerprint
from tests.ca.authorities import cacerts, make
from tests.e2e.test_bookinfo import PRODUCT, load
from tests.support.local_mesh import LocalMesh
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

SCRIPTS = Path(__file__).parents[2] / "scripts"
LATER = datetime.now(UTC) + timedelta(days=3650)


def script(mesh: LocalMesh, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"HEDDLE_STATE": str(mesh.state), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [SCRIPTS / name, *words], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def state(mesh: LocalMesh) -> Any:
    return mesh.json("rotate", "status")


def test_a_root_of_ones_own_comes_without_a_failed_request(bookinfo: LocalMesh, tmp_path: Path) -> None:
    root = make("a root of one's own", ends=LATER)
    between = make("an intermediate of it", root, path_length=0, ends=LATER)
    for name, content in cacerts(between, root).items():
        (tmp_path / name).write_bytes(content)
    with load(bookinfo) as stream:
        imported = script(bookinfo, "import-root", str(tmp_path), "-y", "--window", "10m")
        assert imported.returncode == 0, imported.stderr
        wait_for(lambda: state(bookinfo)["phase"] == "renew")

        # Of ten minutes, a few seconds: hardly anybody has renewed.
        early = script(bookinfo, "check-trust")
        assert early.returncode == 3, early.stdout + early.stderr
        assert "leads to the root that would go: every peer would refuse it" in early.stdout
        assert "a handshake with what would be left is refused" in early.stdout

        bookinfo.run("rotate", "pause")
        bookinfo.run("rotate", "finish", "-y")
        wait_for(lambda: state(bookinfo)["leaves"]["old"] == 0)
        late = script(bookinfo, "check-trust")
        assert late.returncode == 0, late.stdout + late.stderr
        assert state(bookinfo)["phase"] == "renew"

        ended = bookinfo.run("rotate", "resume", "--watch")
        assert "the rotation is complete" in ended.stderr
        time.sleep(0.5)
        counts = stream.stop()
    assert not counts.failures
    (only,) = state(bookinfo)["roots"]
    assert only["fingerprint"] == fingerprint(root.certificate)
    assert script(bookinfo, "export-bundle").stdout == root.pem.decode()
    assert bookinfo.get(PRODUCT)[0] == 200

    again = script(bookinfo, "import-root", str(tmp_path), "-y")
    assert (again.returncode, "it signs already" in again.stdout) == (0, True)
    recent = script(bookinfo, "rotate-root", "-y")
    assert (recent.returncode, "nothing is started" in recent.stderr) == (0, True)
    refused = script(bookinfo, "rotate-intermediate")
    assert (refused.returncode, "was imported" in refused.stderr) == (1, True)
