"""The processes of one test cluster, started and signalled through their keeper (see `keeper`)."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from local.sandbox import helper_command, helper_environment
from mesh.errors import HeddleError
from tests.cluster import cache, keeper, missing

READY_SECONDS = 120.0


class ComponentFailed(Exception):
    """A component of the cluster ended or did not become ready; the message ends with its log's last lines."""


class Processes:
    """`isolate`: in namespaces of their own, as process 1's descendants; needs root.

    They end with `close`, and with the thread that made this.
    """

    def __init__(self, *, isolate: bool) -> None:
        sweep()
        self.state = cache.directory("runs") / secrets.token_hex(4)
        chosen = os.environ.get("HEDDLE_CLUSTER_LOGS")
        self.logs = Path(chosen).resolve() / self.state.name if chosen else self.state / "logs"
        self._lock = threading.Lock()
        order = json.dumps({"isolate": isolate, "state": str(self.state), "parent": os.getpid()})
        self._keeper = subprocess.Popen(
            helper_command("tests.cluster.keeper", order),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=helper_environment(),
            start_new_session=True,  # Ctrl-C is for the test run, whose end then ends this
        )
        try:
            first = self._read()
            self.pid: int = first["pid"]  # of the process whose children all others are, as seen from this process
            self.port: int = first["port"]  # that `{listener}` listens on, on the machine's own loopback
            self._ask("state")
        except BaseException:
            self.close()
            raise
        self.logs.mkdir(parents=True)

    def start(self, name: str, argv: Sequence[str], **env: str) -> None:
        """Start a component, or start it again; its output goes to `logs`/NAME.log."""
        environment = {"PATH": missing.SEARCH, "HOME": str(self.state), "LC_ALL": "C.UTF-8", **env}
        self._ask("start", name=name, argv=list(argv), env=environment, log=str(self.logs / f"{name}.log"))

    def signal(self, name: str, number: signal.Signals) -> None:
        self._ask("signal", name=name, number=int(number))

    def exit_code(self, name: str) -> int | None:
        """Negative for a signal, None while it runs."""
        code: int | None = self._ask("state")[name]
        return code

    def check(self) -> None:
        """ComponentFailed if any has ended."""
        for name, code in self._ask("state").items():
            if code is not None:
                raise self.failure(name, f"ended with code {code}")

    def wait_until(self, name: str, condition: Callable[[], bool]) -> None:
        """Until `condition` holds; ComponentFailed, about the component `name`, if it never does."""
        patience = time.monotonic() + READY_SECONDS
        trouble = ""
        while True:
            try:
                if condition():
                    return
            except HeddleError as error:
                trouble = str(error)
            self.check()
            if time.monotonic() > patience:
                raise self.failure(name, f"is not ready ({trouble})")
            time.sleep(0.05)

    def failure(self, name: str, what: str) -> ComponentFailed:
        log = self.logs / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
        return ComponentFailed("\n".join([f"{name} {what}; its log ends:", *lines]))

    def close(self) -> None:
        """End everything, and wait until nothing is left."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()

    def _ask(self, do: str, **what: Any) -> Any:
        assert self._keeper.stdin is not None
        with self._lock:
            self._keeper.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
            self._keeper.stdin.flush()
            return self._read()["answer"]

    def _read(self) -> dict[str, Any]:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        message: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in message:
            raise ComponentFailed(f"the cluster's keeper: {message['error']}")
        return message


def sweep() -> None:
    """Remove what is left of clusters whose keeper was itself killed."""
    runs = cache.directory("runs")
    for lock in runs.glob("*.lock"):
        try:
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                keeper.remove(runs / lock.stem)
        except (BlockingIOError, FileNotFoundError):
            continue  # it is in use, or another sweep was faster
