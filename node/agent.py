"""The node agent at work: looks into the namespaces that are due, tells what came of it.

One thread sweeps, a few visit; they meet in a queue, so that the schedule belongs to the first alone. Visitors enter
pods' namespaces and come back; iptables is started in them as a process of its own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from mesh.errors import HeddleError
from mesh.interception import InterceptionSpec
from netfilter.rules import Machine, intercept, ipv6_addresses, run_program
from node.enter import names, new_namespace
from node.pods import GatedPods
from node.schedule import NEW_INTERVAL, Schedule, Visit
from node.visit import Outcome, look

VISITORS = 4
SELF_TEST_SECONDS = 30.0

log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True)
class Place:
    """`namespaces`: the folder of the runtime's network namespaces; `host_address`: an address of the node itself."""

    namespaces: Path
    host_address: str


class Agent:
    """`visited` is told what came of each visit that was not for nothing, in the sweeping thread."""

    def __init__(
        self,
        place: Place,
        pods: GatedPods,
        visited: Callable[[Outcome], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._place, self._pods, self._visited, self._monotonic = place, pods, visited, monotonic
        self._schedule = Schedule()
        self._results: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._visitors = ThreadPoolExecutor(VISITORS, thread_name_prefix="visitor")
        self._stopping = threading.Event()
        self._tested: float | None = None
        self._unable = "it has not been tried yet whether rules can be written"
        self._unseen = ""

    def run(self, synced: Callable[[], bool]) -> None:
        """Sweep until `stop`; `synced` says whether the pods of the node are known."""
        while not self._stopping.is_set():
            self._test_now_and_then()
            if synced():
                self.sweep()
            self._stopping.wait(NEW_INTERVAL)
        self._visitors.shutdown()

    def stop(self) -> None:
        self._stopping.set()

    def sweep(self) -> None:
        """Take in what the visitors found, and send them where it is time."""
        now = self._monotonic()
        while not self._results.empty():
            name, outcome = self._results.get()
            self._schedule.visited(name, outcome.visit, now)
            if outcome.visit is not Visit.NOBODY:
                self._visited(outcome)
        try:
            self._schedule.seen(names(self._place.namespaces), now)
            self._unseen = ""
        except HeddleError as error:
            if not self._unseen:
                log.error("blind", error=str(error))
            self._unseen = str(error)
            return
        if self._pods.waiting():
            for name in self._schedule.due(now):
                self._visitors.submit(self._visit, name)

    def not_ready(self) -> str:
        """Why pods of this node wait in vain; "" when they do not."""
        return self._unable or self._unseen

    def _visit(self, name: str) -> None:
        try:
            outcome = look(self._place.namespaces / name, self._place.host_address, self._pods.find, write)
        except Exception as error:  # the namespace must not stay busy for ever
            log.exception("visit failed", namespace=name)
            outcome = Outcome(Visit.FAILED, None, f"{type(error).__name__}: {error}")
        self._results.put((name, outcome))

    def _test_now_and_then(self) -> None:
        now = self._monotonic()
        if self._tested is None or (self._unable and now - self._tested >= SELF_TEST_SECONDS):
            self._tested = now
            self._visitors.submit(self._test)

    def _test(self) -> None:
        try:
            with new_namespace():
                try_rules()
        except HeddleError as error:
            log.error("interception rules cannot be written on this node", error=str(error))
            self._unable = str(error)
        else:
            self._unable = ""


def write(spec: InterceptionSpec) -> None:
    """Rules in the calling thread's network namespace, unless there are some."""
    intercept(spec, Machine(run_program), replace=False)


def try_rules() -> None:
    """Write rules of each IP version that this kernel has, for no pod: says at once what the node lacks."""
    addresses = ["fd" + "0" * 29 + "1"] if ipv6_addresses() or Path("/proc/sys/net/ipv6").exists() else []
    intercept(InterceptionSpec(), Machine(run_program, addresses6=lambda: addresses, add_address6=lambda: None))
