"""An event on each object that was admitted although an Envoy refuses what it leads to, so that it stays known who else
is to look at it: `kubectl describe` shows it, and `kubectl get events` for an hour. Source: events.k8s.io/v1.

Nobody waits for it: it is written behind the answer, and what the API server does not take is dropped and logged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kube.client import Client
from kube.write_behind import WriteBehind

REASON = "AdmittedAnyway"
ACTION = "Admit"
CONTROLLER = "heddle.dev/webhook"
LONGEST_NOTE = 1000  # bytes; the API allows 1,024

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
            client.post(f"/apis/events.k8s.io/v1/namespaces/{override.namespace}/events", event(override, replica, at))

        self._behind = WriteBehind("events", write, limit=_MOST_WAITING, per_second=_PER_SECOND)
        self._behind.start()

    def record(self, override: Override) -> None:
        """Several of one object before the first is written are one: the last."""
        self._behind.offer((override.namespace, override.kind, override.name), (override, self._wall()))


def event(override: Override, replica: str, at: float) -> dict[str, Any]:
    """The warning about the object, as the API server takes it; `at` in seconds since the epoch."""
    note = f"it was admitted all the same: {override.why}; {'; '.join(override.refusals)}"
    digest = hashlib.sha256(f"{override.uid}\n{note}\n{at}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": override.namespace, "name": f"{override.name[:236].rstrip('.-')}.{digest}"},
        "type": "Warning",
        "reason": REASON,
        "action": ACTION,
        "note": note.encode()[:LONGEST_NOTE].decode(errors="ignore"),
        "eventTime": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "regarding": {
            "apiVersion": override.api_version,
            "kind": override.kind,
            "namespace": override.namespace,
            "name": override.name,
            "uid": override.uid,
        },
        "reportingController": CONTROLLER,
        "reportingInstance": replica[:128] or "heddle-webhook",
    }
