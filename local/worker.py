"""One pod's life on this machine: carries out what `local.lifecycle` decides, and reports what happens. Asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from local import lifecycle, pod_files
from local.container import LaunchFailed, Mount, Process, Program, first_process, further_process
from local.env import environment
from local.hooks import launch_with_log, run_and_collect, run_hook
from local.images import command_line, with_working_directory
from local.lifecycle import Container, Decision, Exit
from local.logs import LogPipe, tail
from local.machine import Live, Machine, Pod
from local.network import PodNetwork
from local.probes import Probe, ProbeKind, RunCommand, keep_probing, parse_probe
from local.security import security
from local.status import PodFacts, pod_status, with_transitions
from local.volumes import PodVolumes
from mesh.errors import HeddleError, NotFound

DEFAULT_GRACE = 30.0
LEAST_GRACE = 2.0  # seconds that a sidecar gets even when the others have used up the pod's
_RETRY = 2.0  # seconds until a container is tried again whose volumes, image or environment are not there yet
_PROBES: tuple[ProbeKind, ...] = ("startupProbe", "readinessProbe", "livenessProbe")


class PodWorker:
    """Runs one pod. Create it on the event loop, `await run()`; the other methods are for the loop's thread too."""

    def __init__(self, pod: Pod, machine: Machine) -> None:
        self.pod = pod
        self._machine = machine
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(namespace=self._namespace, pod=pod["metadata"]["name"])
        self._shape = lifecycle.shape_of(pod)
        self._states = {one.name: Container() for one in self._shape.containers}
        self._declared = {
            one["name"]: one for one in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
        }
        self._live: dict[str, Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._network: PodNetwork | None = None
        self._folder = machine.run_dir / "pods" / pod["metadata"]["uid"]
        self._volumes = PodVolumes(pod, self._folder / "volumes", machine.lookup, machine.token_for, machine.monotonic)
        self._began, self._began_wall = machine.monotonic(), machine.wall()
        self._stop_by: float | None = None
        self._problem = ""
        self._volume_problem = ""
        self._commands = 0
        self._reported: dict[str, Any] | None = None

    @property
    def _namespace(self) -> str:
        return str(self.pod["metadata"].get("namespace") or "default")

    @property
    def address(self) -> str:
        """The pod's address; empty until it has one."""
        if self.pod["spec"].get("hostNetwork"):
            return self._machine.network.node_address
        return self._network.address if self._network else ""

    async def run(self) -> None:
        """Until the pod has been stopped: afterwards nothing of it is left but its logs."""
        try:
            await self._attach()
            while True:
                now = self._machine.monotonic()
                self._changed.clear()
                decision = lifecycle.decide(self._shape, self._states, now, self._began, self._stop_by is not None)
                self._report(decision, now)
                if self._stop_by is not None and all(
                    state.step in ("waiting", "exited") for state in self._states.values()
                ):
                    return
                for name in decision.start:
                    self._set(name, step="starting", reason="", message="")
                    self._spawn(self._start(name))
                for name in decision.stop:
                    self._set(name, step="stopping")
                    self._spawn(self._terminate(name, self._stop_deadline(name)))
                await self._wait(decision)
        finally:
            await self._clean_up()

    def stop(self, grace: float | None) -> None:
        """Begin to end the pod, within `grace` seconds (the pod's own if None)."""
        seconds = self._grace() if grace is None else grace
        by = self._machine.monotonic() + seconds
        self._stop_by = by if self._stop_by is None else min(by, self._stop_by)
        self._changed.set()

    def update(self, pod: Pod) -> None:
        """Take over new labels and annotations (the rest of a pod cannot change)."""
        self.pod = {**pod, "status": self.pod.get("status") or {}}
        self._volumes.pod = self.pod

    @property
    def refresh_at(self) -> float:
        """When the next token of the pod is due (monotonic seconds)."""
        return self._volumes.refresh_at

    async def refresh_volumes(self) -> None:
        """Bring volumes up to date."""
        problem = ""
        try:
            for name in await self._machine.in_thread(self._volumes.refresh):
                self._log.info("volume updated", volume=name)
        except HeddleError as error:
            problem = str(error)
        if problem and problem != self._volume_problem:
            # What was there stays in place, as under the kubelet.
            self._log.warning("volume not updated", problem=problem)
        self._volume_problem = problem
        if any(state.reason for state in self._states.values()):
            for name, state in self._states.items():
                if state.step == "waiting" and state.reason:
                    self._set(name, retry_at=0.0)
            self._changed.set()

    def log_path(self, container: str, previous: bool) -> Path:
        """Where the container's output is (of the run before, if `previous`)."""
        if container not in self._declared:
            names = ", ".join(self._declared)
            raise NotFound(
                f"pod {self._namespace}/{self.pod['metadata']['name']} has no container {container!r}", hint=names
            )
        run = self._states[container].restarts - (1 if previous else 0)
        if run < 0:
            raise NotFound(f"container {container!r} has not been restarted, so there is no previous log")
        return self._log_file(container, run)

    def default_container(self) -> str:
        """The container meant when none is named: kubectl's annotation for that, or the first."""
        wanted = (self.pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        return str(wanted) if wanted in self._declared else str(self.pod["spec"]["containers"][0]["name"])

    def order_in(self, container: str, argv: list[str], *, tty: bool) -> dict[str, Any]:
        """The launcher's order for a command in a running container; NotFound if it does not run."""
        live = self._live.get(container)
        if live is None:
            raise NotFound(f"container {container!r} of pod {self.pod['metadata']['name']} is not running")
        return further_process(replace(live.program, argv=argv), live.process.pid, tty=tty)

    # Network and volumes

    async def _attach(self) -> None:
        if not self.pod["spec"].get("hostNetwork"):
            self._network = await self._machine.in_thread(self._machine.network.attach, self._path_name())
        addresses = [{"ip": self.address}]
        node = self._machine.network.node_address
        status = {**(self.pod.get("status") or {}), "podIP": self.address, "podIPs": addresses, "hostIP": node}
        self.pod = {**self.pod, "status": status}
        self._volumes.pod = self.pod

    def _path_name(self) -> str:
        # The uid is unique over time, so that a pod of the same name that is still ending is not in the way.
        return f"pod-{self.pod['metadata']['uid']}"

    # Containers

    async def _start(self, name: str) -> None:
        container, machine = self._declared[name], self._machine
        state = self._states[name]
        run = state.restarts + (1 if state.exit is not None else 0)
        try:
            await machine.in_thread(self._volumes.prepare)
            machine.on_volumes()
            program, mounts, termination_file = self._prepare(container)
            probes = {kind: parse_probe(container, kind) for kind in _PROBES}
        except HeddleError as error:
            reason = "ImageNotMapped" if "has no local command" in error.message else "CreateContainerConfigError"
            self._refused(name, reason, str(error))
            return
        self._set(name, restarts=run)
        log = LogPipe(self._log_file(name, run), self._loop)
        order = first_process(
            program,
            network=self._network,
            hostname=pod_files.hostname(self.pod),
            sysctls=pod_files.sysctls(self.pod),
            root=machine.root,
            scratch=str(machine.scratch),
            files=pod_files.files(self.pod, self.address),
            mounts=mounts,
        )
        try:
            pid = await machine.in_thread(launch_with_log, order, log)
        except (LaunchFailed, OSError) as error:
            log.close()
            wall = machine.wall()
            self._log.warning("container did not start", container=name, problem=str(error))
            self._ended(name, Exit(128, 0, wall, wall, "StartError", str(error)))
            return
        process = Process(pid, self._loop)
        live = Live(process, program, log, termination_file, [])
        self._live[name] = live
        self._states[name] = lifecycle.after_start(
            self._states[name],
            machine.monotonic(),
            machine.wall(),
            starts_slowly=probes["startupProbe"] is not None or "postStart" in (container.get("lifecycle") or {}),
            has_readiness_probe=probes["readinessProbe"] is not None,
        )
        self._changed.set()
        self._log.info("container started", container=name, pid=pid, restarts=run)
        self._spawn(self._follow(name, live))
        overseer = self._loop.create_task(self._oversee(name, probes))
        overseer.add_done_callback(self._task_done)
        live.tasks.append(overseer)

    def _prepare(self, container: Mapping[str, Any]) -> tuple[Program, list[Mount], Path]:
        """Image, rights, environment and mounts of a container; HeddleError if something is not there."""
        machine = self._machine
        image = with_working_directory(machine.images.find(self.pod, container), container)
        field = f"spec.containers[{container['name']}]"
        who = security(self.pod, container, image.user, field)
        base = {"HOME": "/root" if who.uid == 0 else "/", **image.env}
        env = environment(self.pod, container, base, machine.network.services, machine.lookup)
        argv = pod_files.expanded(command_line(image, container), container, env)
        mounts = self._volumes.mounts(container, env)
        file = self._folder / "termination" / container["name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        file.chmod(0o666)
        mounts.append(Mount(str(file), container.get("terminationMessagePath") or "/dev/termination-log", False, True))
        return Program(argv, env, image.directory, who), mounts, file

    async def _follow(self, name: str, live: Live) -> None:
        code, number = await live.process.ended
        for task in live.tasks:
            task.cancel()
        live.log.close()
        del self._live[name]
        state = self._states[name]
        said = tail(live.termination_file, 4096)
        if not said and code:
            said = tail(self._log_file(name, state.restarts))
        reason = "Completed" if code == 0 else "Error"
        ended = Exit(code, number, state.started_at, self._machine.wall(), reason, said)
        self._log.info("container ended", container=name, code=code, signal=number)
        self._ended(name, ended)

    def _ended(self, name: str, ended: Exit) -> None:
        self._states[name] = lifecycle.after_exit(self._states[name], ended, self._machine.monotonic())
        self._changed.set()

    def _refused(self, name: str, reason: str, message: str) -> None:
        if self._states[name].message != message:
            self._log.warning("container not started", container=name, reason=reason, problem=message)
        now = self._machine.monotonic()
        self._states[name] = lifecycle.after_failed_start(self._states[name], reason, message, now, again_in=_RETRY)
        self._changed.set()

    # Probes and hooks

    async def _oversee(self, name: str, probes: Mapping[ProbeKind, Probe | None]) -> None:
        """The postStart hook, then the startup probe until it passes, then the other two for ever."""
        if not await self._hook(name, "postStart", self._grace()):
            self._fail(name, "the postStart hook failed", None)
            return
        startup = probes["startupProbe"]
        if startup is not None:
            passed = asyncio.Event()
            prober = self._loop.create_task(self._probe(name, startup, passed.set))
            try:
                await passed.wait()
            finally:
                prober.cancel()
        if not self._states[name].started:
            self._set(name, started=True, ready=probes["readinessProbe"] is None)
            self._changed.set()
        others = [self._probe(name, probe, None) for kind, probe in probes.items() if probe and kind != "startupProbe"]
        await asyncio.gather(*others)

    async def _probe(self, name: str, probe: Probe, on_pass: Callable[[], None] | None) -> None:
        def report(passing: bool, message: str) -> None:
            if probe.kind == "readinessProbe":
                if self._states[name].step == "running" and self._states[name].ready != passing:
                    self._set(name, ready=passing)
                    self._changed.set()
                    self._log.info("readiness changed", container=name, ready=passing, detail=message)
            elif passing and on_pass is not None:
                on_pass()
            elif not passing:
                self._fail(name, f"{probe.kind} failed: {message}", probe.grace)

        await keep_probing(probe, self.address, self._runner(name), self._machine.monotonic, report)

    def _fail(self, name: str, message: str, grace: float | None) -> None:
        """End a container that is not well; its restart policy decides what comes next."""
        if self._states[name].step != "running":
            return
        self._log.warning("container is killed", container=name, problem=message)
        self._set(name, step="stopping", ready=False)
        seconds = self._grace() if grace is None else grace
        self._spawn(self._terminate(name, self._machine.monotonic() + seconds))
        self._changed.set()

    async def _terminate(self, name: str, deadline: float) -> None:
        """The preStop hook, SIGTERM, and at the deadline SIGKILL."""
        live = self._live.get(name)
        if live is None:
            return
        await self._hook(name, "preStop", deadline - self._machine.monotonic())
        live.process.kill(signal.SIGTERM)
        await asyncio.wait([live.process.ended], timeout=max(0.0, deadline - self._machine.monotonic()))
        live.process.kill()

    async def _hook(self, name: str, kind: str, seconds: float) -> bool:
        """Run the container's hook of this kind, if it has one; whether all is well."""
        hook = (self._declared[name].get("lifecycle") or {}).get(kind)
        if not hook:
            return True
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                problem = await run_hook(hook, self._declared[name], self.address, self._runner(name), seconds)
        except TimeoutError:
            problem = f"not done within {seconds:g} s"
        if problem:
            self._log.warning("hook failed", container=name, hook=kind, problem=problem)
        return not problem

    def _runner(self, name: str) -> RunCommand:
        """How probes and hooks run commands in the container."""

        async def run(argv: list[str], seconds: float) -> tuple[int, str]:
            order = self.order_in(name, argv, tty=False)
            self._commands += 1
            path = self._folder / f"command-{self._commands}"
            return await run_and_collect(order, path, self._machine.in_thread, seconds)

        return run

    # The rest

    def _set(self, name: str, **changes: Any) -> None:
        self._states[name] = replace(self._states[name], **changes)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._problem = f"the engine failed: {task.exception()}"
            self._log.error("worker task failed", exc_info=task.exception())
            self._changed.set()

    def _grace(self) -> float:
        seconds = self.pod["spec"].get("terminationGracePeriodSeconds")
        return DEFAULT_GRACE if seconds is None else float(seconds)

    def _stop_deadline(self, name: str) -> float:
        now = self._machine.monotonic()
        if self._stop_by is None:
            return now + self._grace()
        is_sidecar = any(one.name == name and one.kind == "sidecar" for one in self._shape.containers)
        return max(self._stop_by, now + LEAST_GRACE) if is_sidecar else self._stop_by

    def _log_file(self, container: str, run: int) -> Path:
        metadata = self.pod["metadata"]
        folder = f"{self._namespace}_{metadata['name']}_{metadata['uid']}"
        return self._machine.log_dir / folder / container / f"{run}.log"

    def _report(self, decision: Decision, now: float) -> None:
        facts = PodFacts(self._machine.network.node_address, self.address, self._began_wall, self._problem)
        status = pod_status(self.pod, self._shape, self._states, decision, facts, now)
        status = with_transitions(status, self._reported, self._machine.wall())
        if status != self._reported:
            self._reported = status
            self.pod = {**self.pod, "status": status}
            self._machine.on_status(self.pod, status)

    async def _wait(self, decision: Decision) -> None:
        left = None if decision.wake_at is None else max(0.0, decision.wake_at - self._machine.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), left)

    async def _clean_up(self) -> None:
        for live in list(self._live.values()):
            live.process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while self._live:
                    self._changed.clear()
                    await self._changed.wait()
        for task in [*self._tasks, *(task for live in self._live.values() for task in live.tasks)]:
            task.cancel()
        if self._network is not None:
            await self._machine.in_thread(self._machine.network.detach, self._network)
        await self._machine.in_thread(shutil.rmtree, self._folder, True)
