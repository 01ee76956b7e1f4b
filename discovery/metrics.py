"""Discovery's metrics, by the names that Istio's dashboards know."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """In a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._pushes = Counter(
            "pilot_xds_pushes", "Answers with changes, by type of resource", ["type"], registry=self._registry
        )
        self._rejects = Counter(
            "pilot_total_xds_rejects", "Configuration that Envoy refused", ["type"], registry=self._registry
        )
        self._convergence = Histogram(
            "pilot_proxy_convergence_time",
            "Seconds from the arrival of a change to its being applied by a proxy",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._connected = Gauge("pilot_xds", "Connected proxies", registry=self._registry)
        self._events = Counter(
            "pilot_k8s_reg_events", "Events of the API server, by kind", ["type"], registry=self._registry
        )

    def pushed(self, kinds: Iterable[str]) -> None:
        """An answer with changes of these types went out."""
        for kind in kinds:
            self._pushes.labels(kind).inc()

    def rejected(self, kind: str) -> None:
        """Envoy refuses something of this type that it did not refuse before."""
        self._rejects.labels(kind).inc()

    def converged(self, seconds: float) -> None:
        """A proxy has applied a change, so long after it arrived here."""
        self._convergence.observe(seconds)

    def event(self, kind: str) -> None:
        """The API server told of a change."""
        self._events.labels(kind).inc()

    def connected(self, count: Callable[[], int]) -> None:
        """Ask `count` for the number of connected proxies whenever metrics are read."""
        self._connected.set_function(count)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
