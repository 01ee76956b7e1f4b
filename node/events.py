"""An event on a pod whose rules could not be written, so that `kubectl describe pod` says why it does not start.

The same failure of the same pod is said once in five minutes. Source: events.k8s.io/v1.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kube.client import Client
from kube.write_behind import WriteBehind
from node.claim import PodName
from node.pods import GATE_CONTAINER

REASON = "InterceptionFailed"
ACTION = "WriteInterceptionRules"
CONTROLLER = "heddle.dev/node"
REPEAT_SECONDS = 300.0
LONGEST_NOTE = 1000  # bytes; the API allows 1,024

_MOST_REMEMBERED = 1000
_MOST_WAITING = 100
_PER_SECOND = 10.0


@dataclass(frozen=True, slots=True)
class Failure:
    """`at` is in seconds since the epoch."""

    pod: PodName
    error: str
    at: float


class Reporter:
    """Posts failures behind the work; `failed` never waits. `wall` is the time since the epoch."""

    def __init__(self, node: str, client: Client, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()

        def write(failure: Failure) -> None:
            client.post(f"/apis/events.k8s.io/v1/namespaces/{failure.pod.namespace}/events", event(failure, node))

        self._behind = WriteBehind("events", write, limit=_MOST_WAITING, per_second=_PER_SECOND)
        self._behind.start()

    def failed(self, pod: PodName, error: str) -> None:
        """Called by the one thread that hears of visits."""
        key, now = (pod.uid, error), self._wall()
        if now - self._said.get(key, 0.0) < REPEAT_SECONDS:
            return
        self._said[key] = now
        self._said.move_to_end(key)
        while len(self._said) > _MOST_REMEMBERED:
            self._said.popitem(last=False)
        self._behind.offer(key, Failure(pod, error, now))


def event(failure: Failure, node: str) -> dict[str, Any]:
    """The warning about the pod, as the API server takes it."""
    pod = failure.pod
    note = f"the pod does not start, its interception rules could not be written: {failure.error}"
    digest = hashlib.sha256(f"{pod.uid}\n{failure.error}\n{failure.at}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": pod.namespace, "name": f"{pod.name[:236].rstrip('.-')}.{digest}"},
        "type": "Warning",
        "reason": REASON,
        "action": ACTION,
        "note": note.encode()[:LONGEST_NOTE].decode(errors="ignore"),
        "eventTime": datetime.fromtimestamp(failure.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "fieldPath": f"spec.initContainers{{{GATE_CONTAINER}}}",
        },
        "reportingController": CONTROLLER,
        "reportingInstance": node[:128],
    }
