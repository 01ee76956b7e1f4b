"""Counters of the webhook, under Istio's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from webhook.review import Result


class Metrics:
    """The webhook's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Injection requests")
        self._by_result = {
            Result.INJECTED: self._counter("success", "Pods that got a sidecar"),
            Result.SKIPPED: self._counter("skip", "Pods that were let through as they are"),
            Result.DENIED: self._counter("failure", "Requests refused, malformed ones included"),
        }
        self._registrations = Counter(
            "heddle_webhook_ca_bundle_writes", "Times that a caBundle was written", registry=self._registry
        )
        self._expiry = Gauge(
            "heddle_webhook_certificate_expiry_timestamp_seconds",
            "When the serving certificate ends",
            registry=self._registry,
        )

    def registration_written(self) -> None:
        """A caBundle was written."""
        self._registrations.inc()

    def counted(self, result: Result) -> None:
        """One request was answered."""
        self._requests.inc()
        self._by_result[result].inc()

    def certificate_ends(self, at: float) -> None:
        """Unix seconds."""
        self._expiry.set(at)

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self._registry)

    def _counter(self, name: str, doc: str) -> Counter:
        return Counter(f"sidecar_injection_{name}", doc, registry=self._registry)
