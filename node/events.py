"""An event on a pod whose rules could not be written, so that `kubectl describe pod` says why it does not start.

The same failure of the same pod is said once in five minutes. Source: events.k8s.io/v1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kube import events
from kube.client import Client
from kube.write_behind import WriteBehind
from node.claim import PodName
from node.pods import GATE_CONTAINER

REASON = "InterceptionFailed"
ACTION = "WriteInterceptionRules"
CONTROLLER = "heddle.dev/node"
REPEAT_SECONDS = 300.0

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
            client.post(events.collection(failure.pod.namespace), event(failure, node))

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
    gate = f"spec.initContainers{{{GATE_CONTAINER}}}"
    regarding = events.Regarding("v1", "Pod", pod.namespace, pod.name, pod.uid, gate)
    return events.warning(regarding, events.Reporting(REASON, ACTION, CONTROLLER, node), note, failure.at)
