"""An event on each object that was admitted although an Envoy refuses what it leads to, so that it stays known who else
is to look at it: `kubectl describe` shows it, and `kubectl get events` for an hour. Source: events.k8s.io/v1.

Nobody waits for it: it is written behind the answer, and what the API server does not take is dropped and logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kube import events
from kube.client import Client
from kube.write_behind import WriteBehind

REASON = "AdmittedAnyway"
ACTION = "Admit"
CONTROLLER = "heddle.dev/webhook"

_MOST_WAITING = 100
_PER_SECOND = 10.0


@dataclass(frozen=True, slots=True)
class Override:
    """`why` is what its author says for it; `refusals` is what an Envoy has against it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    why: str
    refusals: tuple[str, ...]


class Recorder:
    """Writes events behind the work; `record` never waits and never raises. `wall` is the time since the epoch."""

    def __init__(self, client: Client, replica: str, wall: Callable[[], float]) -> None:
        self._wall = wall

        def write(item: tuple[Override, float]) -> None:
            override, at = item
            client.post(events.collection(override.namespace), event(override, replica, at))

        self._behind = WriteBehind("events", write, limit=_MOST_WAITING, per_second=_PER_SECOND)
        self._behind.start()

    def record(self, override: Override) -> None:
        """Several of one object before the first is written are one: the last."""
        self._behind.offer((override.namespace, override.kind, override.name), (override, self._wall()))


def event(override: Override, replica: str, at: float) -> dict[str, Any]:
    """The warning about the object, as the API server takes it; `at` in seconds since the epoch."""
    note = f"it was admitted all the same: {override.why}; {'; '.join(override.refusals)}"
    regarding = events.Regarding(override.api_version, override.kind, override.namespace, override.name, override.uid)
    by = events.Reporting(REASON, ACTION, CONTROLLER, replica or "heddle-webhook")
    return events.warning(regarding, by, note, at)
