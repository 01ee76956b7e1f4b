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

from mesh.errors import NotFound

LONGEST_PAUSE = 10.0
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
        """Start the component, unless it is meant to run already."""
        component = self._find(name)
        with self._lock:
            if name in self._wanted:
                return
            self._wanted.add(name)
            self._spawn(component)
        threading.Thread(target=self._keep, args=(component,), name=f"component-{name}", daemon=True).start()

    def stop(self, name: str, *, now: bool = False) -> None:
        """End the component and leave it ended; `now` is SIGKILL instead of SIGTERM."""
        self._find(name)
        with self._lock:
            self._wanted.discard(name)
            process = self._running.pop(name, None)
        if process is None:
            return
        _signal(process, signal.SIGKILL if now else signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()

    def stop_all(self) -> None:
        for name in reversed(list(self._known)):
            self.stop(name)

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

    def _spawn(self, component: Component) -> None:
        with (self._logs / f"{component.name}.log").open("ab") as out:
            self._running[component.name] = subprocess.Popen(
                component.argv,
                env={**os.environ, **component.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # gunicorn's workers end with their master, as one group
            )

    def _keep(self, component: Component) -> None:
        pause = 0.5
        while True:
            with self._lock:
                process = self._running.get(component.name)
            if process is None:
                return
            started = time.monotonic()
            code = process.wait()
            with self._lock:
                if component.name not in self._wanted or self._running.get(component.name) is not process:
                    return
            log.warning("component ended", component=component.name, exit_code=code, restart_in_seconds=pause)
            time.sleep(pause)
            pause = 0.5 if time.monotonic() - started > 30 else min(pause * 2, LONGEST_PAUSE)
            with self._lock:
                if component.name not in self._wanted:
                    return
                self._spawn(component)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
