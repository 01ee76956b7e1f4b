"""`heddle local up`, outside the sandbox: checks the machine, opens the host's ports, starts the engine and waits."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from local import prerequisites, sandbox
from local.forward import Published, listen
from local.images import load_images
from local.reload import manifest_files
from mesh.errors import Conflict

ENGINE = "HEDDLE_ENGINE"
HTTP, HTTPS = 80, 443


@dataclass(frozen=True, slots=True)
class Order:
    """What a mesh on this machine is started with. Paths are absolute; a port 0 is not opened."""

    state: Path
    manifests: tuple[Path, ...]
    images: Path | None
    http_port: int
    https_port: int
    certificate_ttl: str


def check(order: Order) -> None:
    """Raise on what can be known to be wrong beforehand: the machine, the files, another mesh that runs."""
    prerequisites.require()
    manifest_files(order.manifests)
    load_images(order.images)
    if is_running(order.state):
        raise Conflict(
            f"a mesh is already running in {order.state}",
            hint="end it with `heddle local down`, or choose another directory with HEDDLE_STATE",
        )


def run(order: Order, say: Callable[[str], None]) -> int:
    """Run the mesh until it is told to end; the engine's exit code. SIGINT, SIGTERM and SIGHUP end it in order."""
    check(order)
    with _claimed(order.state), _listening(order) as listeners:
        process = sandbox.start(
            [sys.executable, "-m", "local.engine"],
            order.state,
            env={**os.environ, ENGINE: json.dumps(_engine_order(order, listeners))},
            pass_fds=[listener.fileno() for _, listener in listeners],
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
        code = process.wait()
        if code:
            say(f"the engine ended with code {code}; its log is {order.state}.last-log")
        return code


def is_running(state: Path) -> bool:
    """Whether a mesh holds the directory's lock."""
    try:
        with (state / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _claimed(state: Path) -> Iterator[None]:
    """An empty state directory that is ours while we live: what a killed run left in it is removed first."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True, mode=0o700)
    lock: IO[bytes] = (state / "lock").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        _keep_log(state)
        shutil.rmtree(state, ignore_errors=True)
        lock.close()


def _keep_log(state: Path) -> None:
    """The engine's log survives the run, for when it went wrong."""
    with contextlib.suppress(OSError):
        shutil.copyfile(state / "logs" / "engine.log", state.with_name(state.name + ".last-log"))


@contextlib.contextmanager
def _listening(order: Order) -> Iterator[list[tuple[Published, socket.socket]]]:
    listeners: list[tuple[Published, socket.socket]] = []
    try:
        for host_port, service_port, option in (
            (order.http_port, HTTP, "--http-port"),
            (order.https_port, HTTPS, "--https-port"),
        ):
            if host_port:
                published = Published(host_port, service_port)
                listeners.append((published, listen(published, option)))
        yield listeners
    finally:
        for _, listener in listeners:
            listener.close()


def _engine_order(order: Order, listeners: list[tuple[Published, socket.socket]]) -> dict[str, object]:
    return {
        "state": str(order.state),
        "manifests": [str(path) for path in order.manifests],
        "images": str(order.images) if order.images else "",
        "certificateTtl": order.certificate_ttl,
        "starter": os.getpid(),
        "published": [
            {"hostPort": p.host_port, "servicePort": p.service_port, "fd": listener.fileno()}
            for p, listener in listeners
        ],
    }
