"""The kubelet of the embedded engine: runs pods, keeps services' addresses and names working, and tells how pods are.

One thread with one event loop does all of it. Every public method may be called from any thread; the callbacks
(`lookup`, `token_for`, `on_status`) are called on the kubelet's threads and must not wait for the kubelet.
Runs inside the sandbox only (`local.sandbox`), after `Network.start`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from local import linux, rootfs
from local.container import Process, launch
from local.dns import DnsServer, table
from local.env import Lookup
from local.images import Images
from local.machine import Machine, Pod
from local.network import DNS_ADDRESS, Network
from local.sandbox import PROJECT_ROOT
from local.services import Object
from local.volumes import TokenSource
from local.worker import PodWorker
from mesh.errors import Conflict, NotFound

RUN_DIR = Path("/run/heddle")  # a tmpfs of the sandbox: it goes away with it
_LONGEST_REFRESH = 60.0  # seconds between looks at the volumes, as the kubelet's sync period
_SHORTEST_REFRESH = 0.5
_LAUNCHES_AT_ONCE = 4

OnStatus = Callable[[Pod, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Execution:
    """A command that runs in a container: `ended` resolves to its exit code; `kill` sends a signal."""

    pid: int
    ended: concurrent.futures.Future[int]
    kill: Callable[[int], None]


class Kubelet:
    """See the module. `state_dir` is on the machine: logs go there, and containers never see it."""

    def __init__(
        self,
        state_dir: Path,
        network: Network,
        images: Images,
        *,
        lookup: Lookup,
        token_for: TokenSource,
        on_status: OnStatus,
        run_dir: Path = RUN_DIR,
        visible: Iterable[Path] = (),
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        needed = [Path(sys.prefix), Path(sys.base_prefix), PROJECT_ROOT, *images.folders, *visible]
        scratch = run_dir / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        self._threads = concurrent.futures.ThreadPoolExecutor(_LAUNCHES_AT_ONCE, "launch")
        self._machine = Machine(
            network=network,
            images=images,
            root=rootfs.plan(*rootfs.survey(needed), masked=[str(state_dir.resolve())]),
            run_dir=run_dir,
            log_dir=state_dir / "logs",
            scratch=scratch,
            lookup=lookup,
            token_for=token_for,
            on_status=on_status,
            monotonic=monotonic,
            wall=wall,
            in_thread=self._in_thread,
            # Only looks when the next token is due: the volumes of a pod that starts are fresh.
            on_volumes=lambda: self._refresh.set(),
        )
        self._dns = DnsServer(DNS_ADDRESS)
        self._workers: dict[tuple[str, str], PodWorker] = {}
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._refresh = asyncio.Event()
        self._refresh_asked = False
        self._refreshed_at = monotonic()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="kubelet", daemon=True)
        self._log = structlog.get_logger()

    # For other threads

    def start(self) -> None:
        """Start the thread and DNS; OSError if DNS cannot have its address."""
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # containers become this process's children
        self._thread.start()
        self._call(self._dns.start()).result()
        self._call(self._refresh_for_ever())

    def close(self, grace: float = 0.0) -> None:
        """Stop every pod within `grace` seconds, then DNS and the thread."""
        for key in list(self._workers):
            self.stop(*key, grace=grace)
        self._call(self._until_empty()).result()
        self._call(self._dns.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._threads.shutdown()

    def run(self, pod: Pod) -> None:
        """Start a pod (with metadata.uid set). Its status comes through `on_status`; Conflict if it is running."""
        self._call(self._run(pod)).result()

    def update(self, pod: Pod) -> None:
        """New labels and annotations of a running pod; the rest of its spec is not looked at."""
        self._call(self._update(pod)).result()

    def stop(self, namespace: str, name: str, *, grace: float | None = None) -> concurrent.futures.Future[None]:
        """End a pod within its grace period; the future is done when nothing of it is left (at once if unknown)."""
        return self._call(self._stop(namespace, name, grace))

    def pods(self) -> list[tuple[str, str]]:
        """Namespace and name of every pod that has not gone yet."""
        return sorted(self._workers)

    def exec(
        self,
        namespace: str,
        name: str,
        argv: list[str],
        *,
        container: str | None = None,
        stdin: int,
        stdout: int,
        stderr: int,
        tty: bool = False,
    ) -> Execution:
        """Run a command as the container's user, in its namespaces and environment, on these descriptors.

        They stay the caller's to close. With `tty`, stdin is a terminal of its own, and becomes the controlling one.
        NotFound for an unknown pod or a container that does not run; LaunchFailed if there is no such program.
        """
        order = self._call(self._order(namespace, name, container, argv, tty)).result()
        pid = launch(order, stdin, stdout, stderr)
        watched: Execution = self._call(self._watch(pid)).result()
        return watched

    def log_path(self, namespace: str, name: str, container: str | None = None, *, previous: bool = False) -> Path:
        """The file with the container's output; an earlier part is beside it as `.log.1`, where it grew too large."""
        path: Path = self._call(self._log_path(namespace, name, container, previous)).result()
        return path

    def set_services(self, services: Iterable[Object], slices: Iterable[Object]) -> None:
        """Make these the services and endpoints that addresses and names lead to."""
        services, slices = list(services), list(slices)
        self._machine.network.set_services(services, slices)
        names = table(services, slices)
        self._loop.call_soon_threadsafe(lambda: setattr(self._dns, "names", names))

    def refresh_volumes(self) -> None:
        """Look at ConfigMaps, Secrets and tokens again, now; also tries containers again that lacked one."""
        self._loop.call_soon_threadsafe(self._ask_refresh)

    # On the kubelet's thread

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def _call(self, work: Any) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return self._loop.run_in_executor(self._threads, function, *arguments)

    async def _run(self, pod: Pod) -> None:
        key = (pod["metadata"].get("namespace") or "default", pod["metadata"]["name"])
        if key in self._workers:
            raise Conflict(f"pod {'/'.join(key)} is already running", hint="stop it first")
        worker = PodWorker(pod, self._machine)
        self._workers[key] = worker
        self._running[key] = asyncio.create_task(self._run_until_gone(key, worker))

    async def _run_until_gone(self, key: tuple[str, str], worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            self._log.exception("a pod's worker failed", namespace=key[0], pod=key[1])
        finally:
            del self._workers[key]
            del self._running[key]

    async def _update(self, pod: Pod) -> None:
        self._worker(pod["metadata"].get("namespace") or "default", pod["metadata"]["name"]).update(pod)
        self._ask_refresh()

    async def _stop(self, namespace: str, name: str, grace: float | None) -> None:
        task = self._running.get((namespace, name))
        if task is not None:
            self._workers[namespace, name].stop(grace)
            await asyncio.wait([task])

    async def _until_empty(self) -> None:
        while self._running:
            await asyncio.wait(self._running.values())

    async def _order(self, namespace: str, name: str, container: str | None, argv: list[str], tty: bool) -> Any:
        worker = self._worker(namespace, name)
        return worker.order_in(container or worker.default_container(), argv, tty=tty)

    async def _watch(self, pid: int) -> Execution:
        process = Process(pid, self._loop)
        ended: concurrent.futures.Future[int] = concurrent.futures.Future()
        process.ended.add_done_callback(lambda done: ended.set_result(done.result()[0]))

        def kill(number: int) -> None:
            self._loop.call_soon_threadsafe(process.kill, number)

        return Execution(pid, ended, kill)

    async def _log_path(self, namespace: str, name: str, container: str | None, previous: bool) -> Path:
        worker = self._worker(namespace, name)
        return worker.log_path(container or worker.default_container(), previous)

    def _worker(self, namespace: str, name: str) -> PodWorker:
        worker = self._workers.get((namespace, name))
        if worker is None:
            known = ", ".join("/".join(key) for key in sorted(self._workers)) or "none"
            raise NotFound(f"no pod {namespace}/{name} runs here", hint=f"running pods: {known}")
        return worker

    async def _refresh_for_ever(self) -> None:
        """Refresh all volumes when asked to, when a token is due, and once in a while."""
        while True:
            now = self._machine.monotonic()
            if self._refresh_asked or now >= self._refreshed_at + _LONGEST_REFRESH or now >= self._token_due():
                self._refresh_asked, self._refreshed_at = False, now
                for worker in list(self._workers.values()):
                    await worker.refresh_volumes()
            due = min(self._token_due(), self._refreshed_at + _LONGEST_REFRESH)
            self._refresh.clear()
            if self._refresh_asked:
                continue
            # Not more often than this, should a token be due again at once.
            left = max(_SHORTEST_REFRESH, due - self._machine.monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._refresh.wait(), left)

    def _token_due(self) -> float:
        return min((worker.refresh_at for worker in self._workers.values()), default=math.inf)

    def _ask_refresh(self) -> None:
        self._refresh_asked = True
        self._refresh.set()
