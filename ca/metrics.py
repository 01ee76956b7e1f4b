"""Counters of the ca."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kube.write_behind import Counts

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class _WrittenBehind(Collector):
    """What is written to the API server behind issuance."""

    def __init__(self, counts: Callable[[], Mapping[str, tuple[int, Counts]]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "heddle_ca_write_behind_waiting", "Objects that wait to be written", labels=["what"]
        )
        done = CounterMetricFamily(
            "heddle_ca_write_behind", "Objects taken off the queue, by what became of them", labels=["what", "outcome"]
        )
        for what, (length, counts) in self._counts().items():
            waiting.add_metric([what], length)
            for outcome in Counts.__slots__:
                done.add_metric([what, outcome], getattr(counts, outcome))
        yield waiting
        yield done


class Metrics:
    """The ca's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        issued = Counter(
            "heddle_ca_certificates_issued",
            "Certificates issued, by how the caller proved itself",
            ["caller"],
            registry=self._registry,
        )
        self._issued = {kind: issued.labels(kind) for kind in ("token", "certificate")}
        self._refused = Counter(
            "heddle_ca_requests_refused",
            "Requests answered with an error, by its code",
            ["code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "heddle_ca_issue_seconds",
            "Time from the request read to the certificate signed",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._ends = Gauge(
            "heddle_ca_certificate_expiry_timestamp_seconds",
            "When the certificate ends",
            ["certificate"],
            registry=self._registry,
        )

    def issued(self, caller: str, seconds: float) -> None:
        """One certificate went out."""
        self._issued[caller].inc()
        self._seconds.observe(seconds)

    def refused(self, code: str) -> None:
        """One request was answered with an error."""
        self._refused.labels(code).inc()

    def ends(self, certificate: str, at: float) -> None:
        """`certificate`: root, intermediate or serving."""
        self._ends.labels(certificate).set(at)

    def written_behind(self, counts: Callable[[], Mapping[str, tuple[int, Counts]]]) -> None:
        """Show what `counts` says whenever the metrics are read."""
        self._registry.register(_WrittenBehind(counts))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
