"""One pod in a line, as `kubectl get pods` would show it. Pure."""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]


def pod_line(pod: Raw) -> Raw:
    """`namespace`, `name`, `ready` (n/m), `status`, `restarts`, `ip`, `created`, `message` and `settled`.

    `message` says why the pod cannot go on, if so; `settled` means ready, or ended well.
    """
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    sidecars = [c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    counted = {*sidecars, *(c["name"] for c in spec["containers"])}
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    ready = sum(bool(s.get("ready")) for s in states if s["name"] in counted)
    trouble = _trouble(states)
    phase = str(status.get("phase", "Pending"))
    word = "Terminating" if "deletionTimestamp" in meta else (trouble.get("reason") or status.get("reason") or phase)
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "ready": f"{ready}/{len(counted)}",
        "status": word,
        "restarts": sum(int(s.get("restartCount", 0)) for s in states),
        "ip": status.get("podIP", ""),
        "created": meta.get("creationTimestamp", ""),
        "message": trouble.get("message") or (status.get("message", "") if phase == "Failed" else ""),
        "settled": is_ready or phase == "Succeeded",
    }


def _trouble(states: list[Raw]) -> Raw:
    """The first container's state that says why it waits (such as CrashLoopBackOff)."""
    for state in states:
        waiting: Raw = (state.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return {"reason": waiting["reason"], "message": f"container {state['name']}: {waiting.get('message', '')}"}
    return {}
