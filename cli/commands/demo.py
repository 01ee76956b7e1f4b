"""`heddle demo`: the whole mesh on bookinfo, told in the terminal. Every number is measured while it is told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from cli.demo.host import left_behind, surroundings, tree
from cli.demo.story import Story
from cli.mesh_access import Mesh, state_dir
from local import up
from mesh.errors import HeddleError, MissingPrerequisite, Unavailable

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "bookinfo"
START_SECONDS = 120.0
END_SECONDS = 30.0


@click.command("demo")
def command() -> None:
    """Start the mesh on samples/bookinfo, drive traffic, tell what happens, and take everything down again."""
    if not SAMPLE.is_dir():
        raise MissingPrerequisite("the bookinfo sample is not here", hint="run the demo from a clone of the repository")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = surroundings()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="heddle-demo-") as directory:
        manifests = Path(directory) / "manifests"
        shutil.copytree(SAMPLE / "manifests", manifests)
        port = _free_port()
        state = state_dir().with_name("heddle-demo")
        process = _start(state, manifests, port)
        try:
            _wait_until_up(process, state)
            Story(Mesh(state), manifests, port).tell()
        except KeyboardInterrupt:
            click.echo("\ninterrupted: taking the mesh down")
            raise click.Abort from None
        finally:
            mesh = tree(process.pid)
            _end(process)
    left = left_behind(mesh, before)
    if left:
        raise HeddleError(f"the demo left something behind: {left}")
    click.echo("\nLeft behind on this machine: no process, no namespace, no interface, no iptables rule (looked).")
    click.echo(f"\nDone in {time.monotonic() - began:.0f} s. Next: heddle local up -f samples/bookinfo/manifests \\")
    click.echo("                           --images samples/bookinfo/images.yaml")


def _start(state: Path, manifests: Path, port: int) -> subprocess.Popen[bytes]:
    order = up.Order(state, (manifests,), SAMPLE / "images.yaml", port, 0, "24h")
    up.check(order)
    click.echo("Starting the mesh: control plane, then bookinfo's pods, each through the injection webhook.")
    argv = [sys.executable, "-m", "cli.main", "local", "up", "-f", str(manifests), "--images", str(order.images)]
    argv += ["--http-port", str(port), "--https-port", "0"]
    return subprocess.Popen(argv, env={**os.environ, "HEDDLE_STATE": str(state)}, start_new_session=True)


def _wait_until_up(process: subprocess.Popen[bytes], state: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not (state / "ready").exists():
        if process.poll() is not None:
            raise Unavailable("the mesh did not start", hint="the lines above say why")
        if time.monotonic() > until:
            raise Unavailable(f"the mesh is not up after {START_SECONDS:.0f} s", hint=f"see {state}/logs")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # the kernel then ends everything that the engine made
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
