"""Starting the ca the wrong way: one clear line, exit 2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(
    *arguments: str, kubeconfig: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str]]:
    """The exit code and the last line of a ca that ends at once; without `kubeconfig` it has no API server."""
    where = [] if kubeconfig else ["--kube-api", "http://127.0.0.1:1"]
    command = [sys.executable, "-m", "ca", *where, *arguments]
    environment = {**os.environ, **(env or {}), **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False, env=environment)
    assert not done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--leaf-ttl", "soon"), "not a duration"),
        (("--leaf-ttl", "30s"), "not between"),
        (("--max-ttl", "30d"), "twice as long"),
        (("--trust-domain", "A B"), "not a SPIFFE trust domain"),
        (("--metrics-listen", "nowhere"), "not host:port"),
        (("--root-passphrase-file", "/proc/none/passphrase"), "passphrase cannot be read"),
    ],
)
def test_wrong_options(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    code, line = start("--state", str(tmp_path / "state"), *arguments)
    assert code == 2
    assert said in line["error"]


def test_no_place_for_the_root() -> None:
    code, line = start()
    assert code == 2
    assert "it is not said where the root key is (name --state DIR, or --root-secret NAME)" in line["error"]


def test_state_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, line = start("--state", str(tmp_path / "file" / "state"))
    assert code == 2
    assert "cannot be" in line["error"]


@pytest.mark.parametrize("option", ["--listen", "--metrics-listen"])
def test_a_port_that_is_taken(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = start("--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0", option, address)
    assert code == 2
    assert f"cannot listen on {address}" in line["error"]


def test_import_reads_and_opens_nothing() -> None:
    program = "import ca.__main__, ca.app, threading; assert threading.active_count() == 1; print('ok')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "ok\n"
