"""A pod's `status`, in Kubernetes' own JSON, from where its containers are. Pure.

Sources: the Pod API's PodStatus, and "Pod Lifecycle" (conditions, container states).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.lifecycle import Container, Decision, Declared, Shape, States, restarts

WAITING_TO_BE_MADE = "ContainerCreating"
WAITING_FOR_INIT = "PodInitializing"
BACKING_OFF = "CrashLoopBackOff"
LAST_WORDS = 300
"""Characters of the last line that a container said, which its pod's status repeats."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the status says beside the containers: addresses, start (seconds since the epoch), a problem of the pod."""

    node_address: str
    pod_address: str
    started_at: float
    problem: str = ""


def pod_status(
    pod: Mapping[str, Any], shape: Shape, states: States, decision: Decision, facts: PodFacts, now: float
) -> dict[str, Any]:
    """The whole `status` object. `now` is monotonic, for containers that back off; ready gates: Kubernetes' conditions.

    `lastTransitionTime` is left to the caller (`with_transitions`), which knows the status before.
    """
    images = {one["name"]: one.get("image", "") for one in _declared_containers(pod)}
    init = [
        _container_status(shape, one, states[one.name], images[one.name], decision, now)
        for one in shape.containers
        if one.kind != "main"
    ]
    main = [_container_status(shape, one, states[one.name], images[one.name], decision, now) for one in shape.mains]
    over = decision.phase in ("Succeeded", "Failed")
    sidecars = [item for item, one in zip(init, shape.containers, strict=False) if one.kind == "sidecar"]
    unready = [item["name"] for item in (*sidecars, *main) if not item["ready"]]
    status: dict[str, Any] = {
        "phase": decision.phase,
        "conditions": _conditions(shape, states, decision, unready, over),
        "hostIP": facts.node_address,
        "startTime": timestamp(facts.started_at),
        "containerStatuses": main,
        "qosClass": "BestEffort",
    }
    if facts.pod_address:
        status["podIP"] = facts.pod_address
        status["podIPs"] = [{"ip": facts.pod_address}]
    if init:
        status["initContainerStatuses"] = init
    if decision.reason:
        status["reason"] = decision.reason
    if facts.problem:
        status["message"] = facts.problem
    return status


def with_transitions(status: dict[str, Any], before: Mapping[str, Any] | None, wall: float) -> dict[str, Any]:
    """Each condition with the time at which its `status` last changed, given the pod's status before."""
    known = {item["type"]: item for item in (before or {}).get("conditions") or []}
    for item in status["conditions"]:
        old = known.get(item["type"])
        same = old is not None and old["status"] == item["status"]
        item["lastTransitionTime"] = old["lastTransitionTime"] if old is not None and same else timestamp(wall)
    return status


def timestamp(seconds: float) -> str:
    """RFC 3339, as Kubernetes writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _declared_containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]


def _conditions(
    shape: Shape, states: States, decision: Decision, unready: list[str], over: bool
) -> list[dict[str, Any]]:
    ready = _condition("ContainersReady", not unready and not over)
    if over:
        ready["reason"] = "PodCompleted" if decision.phase == "Succeeded" else "PodFailed"
    elif unready:
        ready |= {"reason": "ContainersNotReady", "message": f"containers with unready status: {unready}"}
    initialized = _condition("Initialized", decision.initialized)
    if not decision.initialized:
        waiting = [one.name for one in shape.containers if one.kind != "main" and not _is_done(one, states[one.name])]
        initialized |= {
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: {waiting}",
        }
    return [_condition("PodScheduled", True), initialized, ready, {**ready, "type": "Ready"}]


def _is_done(one: Declared, state: Container) -> bool:
    if one.kind == "sidecar":
        return state.started
    return state.exit is not None and state.exit.code == 0


def _condition(kind: str, met: bool) -> dict[str, Any]:
    return {"type": kind, "status": "True" if met else "False"}


def _container_status(
    shape: Shape, one: Declared, state: Container, image: str, decision: Decision, now: float
) -> dict[str, Any]:
    running = state.step in ("running", "stopping")
    done = one.kind == "init" and _is_done(one, state)
    status: dict[str, Any] = {
        "name": one.name,
        "image": image,
        "imageID": "",
        "restartCount": state.restarts,
        "ready": done or (state.step == "running" and state.ready),
        "started": running and state.started,
        "state": _state(shape, one, state, decision, now),
        "lastState": {},
    }
    if state.exit is not None and "terminated" not in status["state"]:
        status["lastState"] = _terminated(state)
    return status


def _state(shape: Shape, one: Declared, state: Container, decision: Decision, now: float) -> dict[str, Any]:
    if state.step in ("running", "stopping"):
        return {"running": {"startedAt": timestamp(state.started_at)}}
    if state.step == "exited":
        again = restarts(shape, one, state) and decision.phase in ("Pending", "Running")
        if not again or now >= state.retry_at:
            return _terminated(state)
        assert state.exit is not None
        seconds = round(state.retry_at - now)
        message = f"back-off {seconds}s restarting container {one.name!r}, which ended with code {state.exit.code}"
        if last := state.exit.message.rstrip().rpartition("\n")[2]:
            message += f" and said last: {last[:LAST_WORDS]}"
        return {"waiting": {"reason": BACKING_OFF, "message": message}}
    if state.reason:
        return {"waiting": {"reason": state.reason, "message": state.message}}
    late = one.kind == "main" and not decision.initialized
    return {"waiting": {"reason": WAITING_FOR_INIT if late else WAITING_TO_BE_MADE}}


def _terminated(state: Container) -> dict[str, Any]:
    ended = state.exit
    assert ended is not None
    detail: dict[str, Any] = {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": timestamp(ended.started_at),
        "finishedAt": timestamp(ended.finished_at),
    }
    if ended.signal:
        detail["signal"] = ended.signal
    if ended.message:
        detail["message"] = ended.message
    return {"terminated": detail}
