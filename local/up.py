"""`heddle local up`, outside the sandbox: checks the machine, opens the host's ports, starts the engine and waits."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from local import prerequisites, sandbox
from local.forward import Published, listen
from local.images import load_images
from local.reload import manifest_files
from mesh.errors import Conflict, InvalidInput
from mesh.istio.durations import parse_duration

ENGINE = "HEDDLE_ENGINE"
HTTP, HTTPS = 80, 443
LOCK = "heddle.lock"
LOCK_SECONDS = 0.3
SOCKET_PATH_BYTES = 107  # unix(7): sun_path has 108, the last one is zero
LEAST_TTL, MOST_TTL = 60, 7 * 24 * 3600


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
    """Raise on what can be known to be wrong beforehand: the files, the directory, another mesh, the machine."""
    manifest_files(order.manifests)
    load_images(order.images)
    certificate_seconds(order.certificate_ttl)
    check_state(order.state)
    if is_running(order.state):
        raise _running(order.state)
    prerequisites.require()


def certificate_seconds(text: str) -> int:
    """The life of certificates in whole seconds; InvalidInput unless it is a duration that the ca allows."""
    days = re.fullmatch(r"([0-9]{1,6})d", text)
    try:
        seconds = int(days[1]) * 86400 if days else parse_duration(text)
    except ValueError as error:
        raise InvalidInput(str(error), field="--certificate-ttl", hint="such as 24h or 15m") from error
    if not LEAST_TTL <= seconds <= MOST_TTL:
        raise InvalidInput(f"{text} is not from 1m to 7d", field="--certificate-ttl", hint="such as 24h or 15m")
    return int(seconds)


def check_state(state: Path) -> None:
    """InvalidInput unless the directory can be the mesh's: short enough for sockets, and empty or an earlier mesh's.

    What is in it is removed at the start, so that somebody's home or project must not be taken for it.
    """
    longest = len(os.fsencode(state / "engine.sock"))
    if longest > SOCKET_PATH_BYTES:
        raise InvalidInput(
            f"the path {state} is {longest - SOCKET_PATH_BYTES} bytes too long for the sockets in it",
            field="HEDDLE_STATE",
            hint=f"choose one of at most {SOCKET_PATH_BYTES - len('/engine.sock')} bytes",
        )
    try:
        names = {entry.name for entry in state.iterdir()} if state.exists() else set()
    except OSError as error:
        raise _unusable(state, error) from error
    if names and LOCK not in names:
        raise InvalidInput(
            f"{state} is not empty and not a mesh's, and it would be emptied",
            field="HEDDLE_STATE",
            hint="choose a directory that does not exist yet",
        )


def _running(state: Path) -> Conflict:
    return Conflict(
        f"a mesh is already running in {state}",
        hint="end it with `heddle local down`, or choose another directory with HEDDLE_STATE",
    )


def _unusable(state: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"{state} cannot be used: {error.strerror}", field="HEDDLE_STATE", hint="choose a directory that you may write"
    )


def run(order: Order, say: Callable[[str], None]) -> int:
    """Run the mesh until it is told to end; the engine's exit code. SIGINT, SIGTERM and SIGHUP end it in order."""
    check(order)
    with _claimed(order.state), _listening(order) as listeners:
        told: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: told.append(number))
        process = sandbox.start(
            [sys.executable, "-m", "local.engine"],
            order.state,
            env={**os.environ, ENGINE: json.dumps(_engine_order(order, listeners))},
            pass_fds=[listener.fileno() for _, listener in listeners],
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
        if told:  # between the two
            process.send_signal(signal.SIGTERM)
        code = process.wait()
        if code:
            say(f"the engine ended with code {code}; its log is {last_log(order.state)}")
        return code


def is_running(state: Path) -> bool:
    """Whether a mesh holds the directory's lock."""
    try:
        with (state / LOCK).open("rb") as lock:
            # Shared, so that two who ask do not take each other for a mesh.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _claimed(state: Path) -> Iterator[None]:
    """The state directory, ours while we live and empty: what a killed run left in it is removed first."""
    try:
        state.mkdir(parents=True, mode=0o700, exist_ok=True)
        state.chmod(0o700)
        lock = _locked(state)
    except OSError as error:
        raise _unusable(state, error) from error
    try:
        _empty(state)
        yield
    finally:
        _keep_log(state)
        _empty(state)
        with contextlib.suppress(OSError):
            (state / LOCK).unlink()
            state.rmdir()
        lock.close()


def _locked(state: Path) -> IO[bytes]:
    """The directory's lock file, locked; Conflict when a mesh runs there."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        lock: IO[bytes] = (state / LOCK).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            if time.monotonic() > until:  # somebody who only asks whether a mesh runs holds it for a moment
                raise _running(state) from None
            time.sleep(0.01)
            continue
        try:
            if os.path.samestat(os.fstat(lock.fileno()), (state / LOCK).stat()):
                return lock
        except FileNotFoundError:
            state.mkdir(parents=True, mode=0o700, exist_ok=True)
        lock.close()  # a run that ended just now took the file away under us


def _empty(state: Path) -> None:
    """Remove everything but the lock."""
    for entry in list(state.iterdir()):
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def last_log(state: Path) -> Path:
    """Where the engine's log is after the run."""
    return state.with_name(state.name + ".last-log")


def _keep_log(state: Path) -> None:
    """The engine's log survives the run, for when it went wrong."""
    with contextlib.suppress(OSError):
        shutil.copyfile(state / "logs" / "engine.log", last_log(state))


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
        "certificateTtl": f"{certificate_seconds(order.certificate_ttl)}s",
        "starter": os.getpid(),
        "published": [
            {"hostPort": p.host_port, "servicePort": p.service_port, "fd": listener.fileno()}
            for p, listener in listeners
        ],
    }
