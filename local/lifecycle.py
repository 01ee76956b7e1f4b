"""What a pod needs next: which containers to start, which to stop, and when to look again. Pure.

Sources: Kubernetes "Pod Lifecycle", "Init Containers", "Sidecar Containers" (init containers with restartPolicy Always:
started in order, waited for until their startup probe has passed, stopped in reverse order after the others), "Jobs".
The back-off is shorter than the kubelet's (10 s to 5 min), for there is a person waiting: docs/adr/0022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["init", "sidecar", "main"]
Step = Literal["waiting", "starting", "running", "stopping", "exited"]
Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

FIRST_DELAY = 1.0  # seconds before the second restart in a row; the first comes at once
LONGEST_DELAY = 30.0
STEADY_AFTER = 60.0  # running this long forgets earlier failures


@dataclass(frozen=True, slots=True)
class Declared:
    """A container as the pod spec declares it, reduced to what decides its life."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Shape:
    """A pod spec, reduced: its containers (init and sidecar containers first, in order) and policies."""

    containers: tuple[Declared, ...]
    restart_policy: Literal["Always", "OnFailure", "Never"]
    active_deadline: float | None = None

    @property
    def mains(self) -> tuple[Declared, ...]:
        return tuple(one for one in self.containers if one.kind == "main")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended. Times are seconds since the epoch, for people; `code` is 128 + signal for a signal."""

    code: int
    signal: int
    started_at: float
    finished_at: float
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """Where one container is. `since` and `retry_at` are monotonic seconds; `started_at` is since the epoch."""

    step: Step = "waiting"
    started: bool = False
    ready: bool = False
    restarts: int = 0
    failures: int = 0
    since: float = 0.0
    retry_at: float = 0.0
    started_at: float = 0.0
    exit: Exit | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Containers to start and to stop now; when to decide again if nothing happens; the pod's phase."""

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    wake_at: float | None = None
    phase: Phase = "Pending"
    initialized: bool = False
    reason: str = ""


States = Mapping[str, Container]


def shape_of(pod: Mapping[str, Any]) -> Shape:
    """The reduced form of a pod spec."""
    spec = pod["spec"]
    containers = [
        Declared(one["name"], "sidecar" if one.get("restartPolicy") == "Always" else "init")
        for one in spec.get("initContainers") or []
    ]
    containers += [Declared(one["name"], "main") for one in spec["containers"]]
    return Shape(tuple(containers), spec.get("restartPolicy") or "Always", spec.get("activeDeadlineSeconds"))


def decide(shape: Shape, states: States, now: float, began: float, stopping: bool) -> Decision:
    """The next actions. `began` is when the pod started (monotonic); `stopping` when it is to go away."""
    overdue = shape.active_deadline is not None and now >= began + shape.active_deadline
    if stopping or overdue:
        reason = "DeadlineExceeded" if overdue else ""
        return _wind_down(shape, states, reason)
    start: list[str] = []
    waits: list[float] = []
    under_way = any(states[one.name].step != "waiting" or states[one.name].restarts for one in shape.mains)
    for one in shape.containers:
        state = states[one.name]
        if one.kind == "main":
            continue
        if one.kind == "init":
            if _succeeded(state):
                continue
            if state.step == "exited" and shape.restart_policy == "Never":
                return _finish(shape, states, "Failed", initialized=False)
        _consider(one, state, now, start, waits)
        if one.kind == "init" or not (under_way or (state.step == "running" and state.started)):
            return Decision(tuple(start), (), _wake(shape, waits, began), "Pending")
    if all(_finished(shape, states[one.name]) for one in shape.mains):
        good = all(_succeeded(states[one.name]) for one in shape.mains)
        return _finish(shape, states, "Succeeded" if good else "Failed", initialized=True)
    for one in shape.mains:
        if not _finished(shape, states[one.name]):
            _consider(one, states[one.name], now, start, waits)
    begun = under_way and any(states[one.name].step in ("running", "stopping", "exited") for one in shape.mains)
    return Decision(tuple(start), (), _wake(shape, waits, began), "Running" if begun else "Pending", initialized=True)


def after_start(
    state: Container, now: float, wall: float, *, starts_slowly: bool, has_readiness_probe: bool
) -> Container:
    """The state once the program runs. `starts_slowly`: a startup probe or postStart hook is still to pass."""
    return replace(
        state,
        step="running",
        started=not starts_slowly,
        ready=not starts_slowly and not has_readiness_probe,
        since=now,
        started_at=wall,
        reason="",
        message="",
    )


def after_exit(state: Container, ended: Exit, now: float) -> Container:
    """The state once the program has ended, with the time before which it is not started again."""
    ran_steadily = state.step == "running" and now - state.since >= STEADY_AFTER
    failures = 1 if ran_steadily else state.failures + 1
    return replace(
        state,
        step="exited",
        started=False,
        ready=False,
        failures=failures,
        retry_at=now + delay(failures),
        exit=ended,
        reason="",
        message="",
    )


def after_failed_start(state: Container, reason: str, message: str, now: float, *, again_in: float) -> Container:
    """The state when it could not be started at all: it waits, says why, and is tried again."""
    return replace(
        state, step="waiting", started=False, ready=False, retry_at=now + again_in, reason=reason, message=message
    )


def delay(failures: int) -> float:
    """Seconds to wait before a restart, after this many ends in a row: 0, 1, 2, 4 ... 30."""
    return 0.0 if failures <= 1 else min(FIRST_DELAY * 2.0 ** min(failures - 2, 10), LONGEST_DELAY)


def restarts(shape: Shape, one: Declared, state: Container) -> bool:
    """Whether this container, which has ended, is to be started again."""
    if one.kind == "sidecar":
        return True
    if one.kind == "init":
        return not _succeeded(state) and shape.restart_policy != "Never"
    return not _finished(shape, state)


def _consider(one: Declared, state: Container, now: float, start: list[str], waits: list[float]) -> None:
    if state.step not in ("waiting", "exited"):
        return
    if now >= state.retry_at:
        start.append(one.name)
    else:
        waits.append(state.retry_at)


def _succeeded(state: Container) -> bool:
    return state.step == "exited" and state.exit is not None and state.exit.code == 0


def _finished(shape: Shape, state: Container) -> bool:
    """Whether a main container has ended for good."""
    if state.step != "exited" or shape.restart_policy == "Always":
        return False
    return shape.restart_policy == "Never" or _succeeded(state)


def _down(state: Container) -> bool:
    return state.step in ("waiting", "exited")


def _wind_down(shape: Shape, states: States, reason: str) -> Decision:
    """Everything but sidecars stops at once; then sidecars, the last one first, each after the one before has ended."""
    others = [one.name for one in shape.containers if one.kind != "sidecar" and not _down(states[one.name])]
    if others:
        stop = tuple(name for name in others if states[name].step == "running")
        return Decision((), stop, None, "Running", initialized=True, reason=reason)
    return replace(_finish(shape, states, "Failed", initialized=True), reason=reason)


def _finish(shape: Shape, states: States, phase: Phase, *, initialized: bool) -> Decision:
    """The phase once all sidecars are down; until then, the next one to stop."""
    for one in reversed(shape.containers):
        state = states[one.name]
        if one.kind == "sidecar" and not _down(state):
            stop = (one.name,) if state.step == "running" else ()
            return Decision((), stop, None, "Running", initialized=initialized)
    return Decision((), (), None, phase, initialized=initialized)


def _wake(shape: Shape, waits: list[float], began: float) -> float | None:
    if shape.active_deadline is not None:
        waits = [*waits, began + shape.active_deadline]
    return min(waits, default=None)
