"""Whether what was applied works, from the objects alone, and if not, why, in the cluster's own words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Raw = Mapping[str, Any]


STARTING = ("it waits for a node", "it is being started", "it runs and is not ready yet")
"""What every pod says for a while."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What stands in the way: of which pods, and why."""

    who: str
    why: str

    def __str__(self) -> str:
        return f"{self.who}: {self.why}" if self.who else self.why


@dataclass(frozen=True, slots=True)
class State:
    """`ready` of `wanted` pods, and what stands in the way of the others."""

    done: bool
    ready: int = 0
    wanted: int = 0
    reasons: tuple[Reason, ...] = ()


def state_of(raw: Raw, pods: Iterable[Raw] = ()) -> State:
    """Of a Deployment or DaemonSet with its pods, or of a CustomResourceDefinition; anything else is done."""
    match raw["kind"]:
        case "Deployment":
            return _deployment(raw, list(pods))
        case "DaemonSet":
            return _daemon_set(raw, list(pods))
        case "CustomResourceDefinition":
            return _definition(raw)
        case _:
            return State(True)


def _deployment(raw: Raw, pods: list[Raw]) -> State:
    status, spec = raw.get("status") or {}, raw["spec"]
    wanted = spec.get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0)
    updated, ready = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    done = seen and updated >= wanted and ready >= wanted and status.get("replicas", 0) <= updated
    return State(done, min(ready, wanted), wanted, () if done else _reasons(raw, pods))


def _daemon_set(raw: Raw, pods: list[Raw]) -> State:
    status = raw.get("status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    seen = status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0)
    ready = min(status.get("numberAvailable", 0), status.get("updatedNumberScheduled", 0))
    done = seen and ready >= wanted
    return State(done, ready, wanted, () if done else _reasons(raw, pods))


def _definition(raw: Raw) -> State:
    conditions = {each["type"]: each for each in (raw.get("status") or {}).get("conditions") or ()}
    refused = conditions.get("NamesAccepted", {})
    if refused.get("status") == "False":
        return State(False, reasons=(Reason(raw["metadata"]["name"], str(refused.get("message"))),))
    return State(conditions.get("Established", {}).get("status") == "True")


def _reasons(raw: Raw, pods: list[Raw]) -> tuple[Reason, ...]:
    """What the workload says of pods that it could not make, and what each pod says that is not ready."""
    found = [
        Reason("", str(each.get("message") or each.get("reason")))
        for each in (raw.get("status") or {}).get("conditions") or ()
        if each["type"] == "ReplicaFailure" and each["status"] == "True"
    ]
    alike: dict[str, list[str]] = {}
    for pod in pods:
        reason = pod_trouble(pod)
        if reason:
            alike.setdefault(reason, []).append(pod["metadata"]["name"])
    found += [Reason(f"pod {', '.join(sorted(names))}", why) for why, names in alike.items()]
    return tuple(dict.fromkeys(found))


def pod_trouble(pod: Raw) -> str:
    """Why the pod is not ready; "" when it is, or is on its way out."""
    status = pod.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    if pod["metadata"].get("deletionTimestamp") or conditions.get("Ready", {}).get("status") == "True":
        return ""
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"it is not scheduled: {scheduled.get('message') or scheduled.get('reason')}"
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        said = _container_trouble(container)
        if said:
            return f"container {container['name']}: {said}"
    if status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    if status.get("containerStatuses"):
        return STARTING[2]
    return STARTING[1] if pod.get("spec", {}).get("nodeName") else STARTING[0]


def _container_trouble(container: Raw) -> str:
    state = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    waiting = state.get("waiting")
    if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        said = f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        return f"{said} ({_ended(ended)})" if ended else said
    if ended and ended.get("exitCode") and not state.get("running"):
        return _ended(ended)
    return ""


def _ended(ended: Raw) -> str:
    said = (ended.get("message") or ended.get("reason") or "").strip().splitlines()
    return f"it ended with {ended.get('exitCode')}" + (f": {said[-1]}" if said else "")
