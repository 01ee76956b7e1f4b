"""Child processes of a PID 1: started by fork and exec, reaped by SIGCHLD, whoever's children they were.

Not asyncio's subprocesses: those wait in a thread each (Python 3.11), and they would fight for the exit statuses with a
PID 1, which must reap every orphan.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Child:
    """A running child. `exited` becomes its exit status, negative for the signal that ended it."""

    def __init__(self, pid: int, exited: asyncio.Future[int]) -> None:
        self.pid = pid
        self.exited = exited

    @property
    def running(self) -> bool:
        return not self.exited.done()

    def kill(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the child has ended."""
        if self.running:
            os.kill(self.pid, number)


class Children:
    """Call `start` inside the event loop before the first `spawn`."""

    def __init__(self) -> None:
        self._known: dict[int, Child] = {}

    def start(self) -> None:
        """Reap from now on."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(self, command: Sequence[str], descriptors: Mapping[int, int], *, environment: Mapping[str, str]) -> Child:
        """Start `command`; `descriptors` maps the child's file descriptors to ours (0 to 2 are inherited otherwise)."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(command, descriptors, environment, parent)
        child = Child(pid, asyncio.get_running_loop().create_future())
        self._known[pid] = child
        return child

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._known.pop(pid, None)
            if child is not None and not child.exited.done():
                child.exited.set_result(os.waitstatus_to_exitcode(status))


def _become(
    command: Sequence[str], descriptors: Mapping[int, int], environment: Mapping[str, str], parent: int
) -> None:
    """In the child: never returns. Nothing of the parent's event loop is touched."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if parent != 1:  # the kernel ends everything with a PID 1; without one, this does
            import ctypes  # here, so that it costs the agent itself nothing

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
        for target, source in descriptors.items():
            os.dup2(source, target, inheritable=True)
        os.execve(command[0], list(command), dict(environment))  # noqa: S606
    except BaseException as error:  # the parent's stack must not unwind a second time
        os.write(2, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)
