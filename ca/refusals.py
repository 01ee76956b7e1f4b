"""Events on pods whose certificate was refused, so that `kubectl describe pod` says why the proxy has no identity.

Only of a pod that is certain to be the one that asks: else anybody could write on anybody's pod. The same refusal of
the same pod becomes one event with a count. Source: events.k8s.io/v1 (Event, EventSeries).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kube import events
from kube.client import Client
from mesh.errors import HeddleError, NotFound
from svid.material import PodRef

REASON = "CertificateRefused"
ACTION = "IssueCertificate"
CONTROLLER = "heddle.dev/ca"
SERIES_SECONDS = 60.0  # the count of an event that goes on is written this often at most
FORGET_SECONDS = 360.0  # then the next refusal is an event of its own, as client-go has it
MOST_REMEMBERED = 1000


@dataclass(slots=True)
class _Series:
    pod: PodRef
    note: str
    name: str
    first: float
    last: float
    count: int = 1
    written: float = 0.0


class Refusals:
    """Turns refusals into events. `offer(key, series)` queues a write, `write` carries it out."""

    def __init__(self, replica: str, wall: Callable[[], float]) -> None:
        self._replica = replica
        self._wall = wall
        self._lock = threading.Lock()
        self._series: OrderedDict[tuple[str, str], _Series] = OrderedDict()

    def refused(self, pod: PodRef, error: HeddleError, offer: Callable[[object, _Series], object]) -> None:
        """Remember one refusal, and queue what has to be written of it."""
        note, now = events.note_of(str(error)), self._wall()
        key = (pod.uid, note)
        with self._lock:
            series = self._series.get(key)
            if series is None or now - series.last > FORGET_SECONDS:
                series = self._series[key] = _Series(pod, note, events.name_of(_regarding(pod), note, now), now, now)
            else:
                series.count += 1
                series.last = now
            self._series.move_to_end(key)
            while len(self._series) > MOST_REMEMBERED:
                self._series.popitem(last=False)
            if now - series.written < SERIES_SECONDS:
                return
            series.written = now
        offer(key, series)

    def write(self, client: Client, series: _Series) -> None:
        """Create the event, or bring its count up to date. Needs the rights to `create` and `patch` events."""
        collection = events.collection(series.pod.namespace)
        if series.count > 1:
            try:
                client.merge(f"{collection}/{series.name}", {"series": _series_json(series)})
                return
            except NotFound:
                pass  # events are forgotten after an hour
        client.post(collection, event(series, self._replica))


def event(series: _Series, replica: str) -> dict[str, Any]:
    """The Event of a refusal's first time."""
    by = events.Reporting(REASON, ACTION, CONTROLLER, replica or "heddle-ca")
    return events.warning(_regarding(series.pod), by, series.note, series.first)


def _regarding(pod: PodRef) -> events.Regarding:
    return events.Regarding("v1", "Pod", pod.namespace, pod.name, pod.uid)


def _series_json(series: _Series) -> dict[str, Any]:
    return {"count": series.count, "lastObservedTime": events.micro_time(series.last)}
