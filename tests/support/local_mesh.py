"""A real mesh of `heddle local` for a test: started by the console script, asked through it, gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.commands.status import read as read_status
from cli.mesh_access import Mesh
from local.linux import die_with_parent
from tests.support.ports import free_port

HEDDLE = str(Path(sys.executable).with_name("heddle"))
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 180.0
SETTLE_SECONDS = 120.0


@dataclass(frozen=True)
class LocalMesh:
    """`state` is its directory, `manifests` the directory that it follows, `port` leads to the ingress gateway's 80."""

    state: Path
    manifests: Path
    port: int
    https_port: int
    process: subprocess.Popen[bytes]

    def run(self, *words: str, check: bool = True, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """`heddle WORDS` against this mesh."""
        done = subprocess.run(
            [HEDDLE, *words], env=_environment(self.state), capture_output=True, text=True, check=False, timeout=timeout
        )
        assert not check or done.returncode == 0, f"heddle {' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        """What `heddle WORDS -o json` printed; its exit code does not matter."""
        return json.loads(self.run(*words, "-o", "json", check=False).stdout)

    def inside(self, pod: str, *argv: str, container: str = "", check: bool = True) -> str:
        """The output of a command in the pod (its name, or the beginning of it)."""
        chosen = ("-c", container) if container else ()
        return self.run("local", "exec", pod, *chosen, "--", *argv, check=check).stdout

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON (or text) of a request through the ingress gateway."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _decoded(error.read())

    def write(self, name: str, text: str) -> None:
        """Replace a manifest file in one step, as editors do."""
        fresh = self.manifests / f".{name}.new"
        fresh.write_text(text)
        fresh.replace(self.manifests / name)

    def change(self, name: str, text: str) -> None:
        """`write`, and wait until the engine has taken it over or says why not. Until then, `settle` is of the past."""
        before = self._told()
        self.write(name, text)
        until = time.monotonic() + SETTLE_SECONDS
        while self._told() == before:
            assert time.monotonic() < until, f"{name} as written changes nothing"
            time.sleep(0.02)

    def _told(self) -> tuple[int, list[str]]:
        status = Mesh(self.state).get("/status")
        return status["resourceVersion"], status["problems"]

    def settle(self) -> dict[str, Any]:
        """Wait until every pod is ready and every proxy has applied what is current; the status then."""
        until = time.monotonic() + SETTLE_SECONDS
        status: dict[str, Any] = {}
        while time.monotonic() < until:
            mesh = Mesh(self.state)
            engine = mesh.get("/status")
            status, pods = read_status(mesh, 5), engine["pods"]
            if status.get("ready") and not engine["pending"] and pods and all(pod["settled"] for pod in pods):
                return status
            time.sleep(0.05)
        raise AssertionError(f"the mesh does not settle: {json.dumps(status)[:3000]}")


@contextmanager
def local_mesh(folder: Path, manifests: Path, images: Path | None, options: Sequence[str] = ()) -> Iterator[LocalMesh]:
    """A running mesh on `manifests` (a directory), with its state and log below `folder`."""
    port, https_port = free_port(), free_port()
    state = folder / "state"
    argv = [HEDDLE, "local", "up", "-f", str(manifests), "--http-port", str(port), "--https-port", str(https_port)]
    argv += ["--images", str(images)] if images else []
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, *options], env=_environment(state), stdout=log, stderr=log, preexec_fn=die_with_parent
        )
    mesh = LocalMesh(state, manifests, port, https_port, process)
    try:
        _await_ready(mesh, folder / "up.log")
        yield mesh
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(mesh: LocalMesh, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not _is_ready(mesh):
        running = mesh.process.poll() is None
        if not running or time.monotonic() > until:
            more = mesh.run("local", "status", check=False).stdout if running else ""
            raise AssertionError(f"the mesh is not up:\n{log.read_text()}\n{more}")
        time.sleep(0.05)


def _is_ready(mesh: LocalMesh) -> bool:
    """Whether this process says so: a mesh that was killed leaves its own word behind."""
    try:
        return (mesh.state / "ready").read_text() == str(mesh.process.pid)
    except FileNotFoundError:
        return False


def _environment(state: Path) -> dict[str, str]:
    return {**os.environ, "HEDDLE_STATE": str(state)}


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
