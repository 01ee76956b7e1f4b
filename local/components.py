"""The control plane's processes: started, watched, restarted with a pause that grows, and stopped on request."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from mesh.errors import HeddleError, NotFound, Unavailable

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
HEALTHY_SECONDS = 30.0
"""A component that ran so long is started again after the first pause."""
GRACE_SECONDS = 5.0
log = structlog.get_logger("heddle.local")


@dataclass(frozen=True, slots=True)
class Component:
    """One program of the control plane; `name` is what people call it (`ca`, `webhook`, `discovery`)."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]


class Components:
    """Keeps each started component running until `stop`. Output goes to `<logs>/<name>.log`."""

    def __init__(self, components: Sequence[Component], logs: Path) -> None:
        self._known = {component.name: component for component in components}
        self._logs = logs
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start the component, unless it is meant to run already. Unavailable when it cannot be started at all."""
        component = self._find(name)
        with self._lock:
            if name in self._wanted:
                return
            process = self._spawn(component)
            self._wanted.add(name)
        keeper = threading.Thread(target=self._keep, args=(component, process), name=f"component-{name}", daemon=True)
        keeper.start()

    def stop(self, name: str, *, now: bool = False) -> None:
        """End the component and leave it ended; `now` is SIGKILL instead of SIGTERM."""
        self._find(name)
        process = self._signalled(name, signal.SIGKILL if now else signal.SIGTERM)
        if process is not None:
            _wait(process, GRACE_SECONDS)

    def stop_all(self) -> None:
        """End all of them at once."""
        ending = [self._signalled(name, signal.SIGTERM) for name in reversed(list(self._known))]
        until = time.monotonic() + GRACE_SECONDS
        for process in ending:
            if process is not None:
                _wait(process, max(0.0, until - time.monotonic()))

    def _signalled(self, name: str, number: signal.Signals) -> subprocess.Popen[bytes] | None:
        """The component's process, which is wanted no more and has got the signal; None if it does not run."""
        with self._lock:
            self._wanted.discard(name)
            process = self._running.pop(name, None)
            if process is not None:
                _signal(process, number)
            return process

    def states(self) -> dict[str, str]:
        """`running`, `restarting` or `stopped` for each."""
        with self._lock:
            return {name: self._state(name) for name in self._known}

    def _state(self, name: str) -> str:
        if name not in self._wanted:
            return "stopped"
        process = self._running.get(name)
        return "running" if process is not None and process.poll() is None else "restarting"

    def _find(self, name: str) -> Component:
        if name not in self._known:
            known = ", ".join(self._known)
            raise NotFound(f"there is no component {name!r}", hint=f"the control plane's are {known}")
        return self._known[name]

    def _spawn(self, component: Component) -> subprocess.Popen[bytes]:
        try:
            with (self._logs / f"{component.name}.log").open("ab") as out:
                process = subprocess.Popen(
                    component.argv,
                    env={**os.environ, **component.env},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # gunicorn's workers end with their master, as one group
                )
        except OSError as error:
            raise Unavailable(f"the {component.name} cannot be started: {error}") from error
        self._running[component.name] = process
        return process

    def _keep(self, component: Component, process: subprocess.Popen[bytes]) -> None:
        """Start the component again whenever it ends, until `stop` (which takes `process` out of `_running`)."""
        pause = FIRST_PAUSE
        started = time.monotonic()
        while True:
            code = process.wait()
            with self._lock:
                if self._running.get(component.name) is not process:
                    return
                _signal(process, signal.SIGKILL)  # what is left of its group would hold its ports
            pause = FIRST_PAUSE if time.monotonic() - started > HEALTHY_SECONDS else pause
            log.warning("component ended", component=component.name, exit_code=code, restart_in_seconds=pause)
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            with self._lock:
                if self._running.get(component.name) is not process:
                    return  # stopped meanwhile, and perhaps started again, which has a keeper of its own
                try:
                    process = self._spawn(component)
                except HeddleError as error:
                    log.warning("component not started", component=component.name, error=str(error))
                started = time.monotonic()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until it has ended; it is killed after so many seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
