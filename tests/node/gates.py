"""A gate as kubelet starts it, in a real network namespace: the proxy's user, no capability, no new privileges."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from local.linux import die_with_parent
from mesh.interception import InterceptionSpec, arguments
from tests.mesh.network import POD, POD6, Namespace

ROOT = Path(__file__).parents[2]
POD_UID = "0b9a3b8e-6a0f-4f6e-9d5d-1f2f3a4b5c6d"

# Another user may not be able to read the checkout, so the program is loaded before its rights go.
_PROGRAM = """
import os, sys
from local import linux
from node import gate
gate.WAIT_SECONDS, gate.SAY_SECONDS = float(sys.argv[1]), 0.3
# Opened here, because another user may not be able to read the test's folder; kubelet mounts it where all can.
gate.TERMINATION_LOG = type(gate.TERMINATION_LOG)(f"/dev/fd/{os.open(sys.argv[2], os.O_WRONLY)}")
linux.prctl(38, 1)
linux.limit_capabilities(frozenset())
os.setgroups([])
os.setresgid(1337, 1337, 1337)
os.setresuid(int(sys.argv[3]), int(sys.argv[3]), int(sys.argv[3]))
sys.exit(gate.main(sys.argv[4:]))
"""


class RunningGate:
    """`seconds` is how long it waits for rules."""

    def __init__(
        self,
        pod: Namespace,
        folder: Path,
        spec: InterceptionSpec | None = None,
        seconds: float = 60.0,
        *,
        uid: int = 1337,
        name: str = "reviews-v1-0",
        pod_uid: str = POD_UID,
        words: list[str] | None = None,
    ) -> None:
        self.message = folder / "termination-log"
        self.message.write_text("")
        self.message.chmod(0o666)
        given = words if words is not None else arguments(spec or InterceptionSpec())
        environment = {
            **os.environ,
            "POD_NAMESPACE": "default",
            "POD_NAME": name,
            "POD_UID": pod_uid,
            "NODE_NAME": "node-1",
        }
        enter = ["nsenter", f"--net=/run/netns/{pod.name}", sys.executable]
        self.process = subprocess.Popen(
            [*enter, "-c", _PROGRAM, str(seconds), str(self.message), str(uid), *given],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent,
            text=True,
        )
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        return "\n".join(self._lines)

    def await_line(self, words: str) -> None:
        with self._said:
            found = self._said.wait_for(
                lambda: any(words in line for line in self._lines) or self.process.poll() is not None, timeout=60
            )
            assert found, self.log
            assert any(words in line for line in self._lines), self.log

    def result(self) -> int:
        code = self.process.wait(timeout=60)
        self._reader.join(10)
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self._lines.append(line.rstrip())
                self._said.notify_all()


def made_pod(*, v6: bool = True) -> Namespace:
    """A namespace with an address of each IP version, as CNI makes it for a pod."""
    pod = Namespace()
    pod.ip("link", "add", "eth0", "type", "veth", "peer", "name", "host0")
    pod.ip("addr", "add", f"{POD}/24", "dev", "eth0")
    if v6:
        pod.ip("addr", "add", f"{POD6}/64", "dev", "eth0", "nodad")
    pod.ip("link", "set", "host0", "up")
    pod.ip("link", "set", "eth0", "up")
    return pod
