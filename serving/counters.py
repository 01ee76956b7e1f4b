"""Counters under Istio's names. Those of its control plane end without `_total`, which the client library would add."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_UNTYPED = re.compile(rb"^(# TYPE \S+) untyped$", re.MULTILINE)


class PlainCounter(Collector):
    """A counter that goes out as `name`, whatever that ends with.

    `known`: values of its labels that are there from the beginning, at 0, so that Prometheus sees the first increase
    as one. A counter without labels is there from the beginning anyway.
    """

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
        known: Iterable[tuple[str, ...]] = (),
    ) -> None:
        self._name, self._meaning, self._labels = name, meaning, tuple(labels)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], float] = dict.fromkeys(known if labels else [()], 0.0)
        registry.register(self)

    def inc(self, *values: str) -> None:
        """Count one more; `values` are the labels', in their order. ValueError when there are too few or too many."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, got {values}")
        with self._lock:
            self._counts[values] = self._counts.get(values, 0.0) + 1.0

    def collect(self) -> Iterator[Metric]:
        family = Metric(self._name, self._meaning, "unknown")
        with self._lock:
            counts = dict(self._counts)
        for values, count in counts.items():
            family.add_sample(self._name, dict(zip(self._labels, values, strict=True)), count)
        yield family


def exposition(registry: CollectorRegistry) -> bytes:
    """The metrics in Prometheus' text format. Of no known type, to the library, are PlainCounters, and they alone."""
    return _UNTYPED.sub(rb"\1 counter", generate_latest(registry))
