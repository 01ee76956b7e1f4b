"""Counters of the webhook, under Istio's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from webhook.preflight import Came
from webhook.review import Result
from webhook.validate import Validated, Verdict


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

        # Istio's names, which end without `_total`; a Counter would add that.
        self._passed = Gauge(
            "galley_validation_passed",
            "Objects that were admitted after they were checked",
            ["group", "version", "resource"],
            registry=self._registry,
        )
        self._failed = Gauge(
            "galley_validation_failed",
            "Objects that were refused, and requests that could not be read",
            ["group", "version", "resource", "reason"],
            registry=self._registry,
        )
        self._warnings = Counter(
            "heddle_validation_warnings", "Warnings given at admission", ["resource"], registry=self._registry
        )
        self._preflights = Counter(
            "heddle_preflight",
            "Objects to be tried by an Envoy at admission",
            ["result"],
            registry=self._registry,
        )
        self._enforced = Gauge(
            "heddle_validation_enforced",
            "1 while objects are refused that could not be checked (failurePolicy Fail)",
            registry=self._registry,
        )

    def validated(self, outcome: Validated) -> None:
        """One object was checked, or let through unchecked, which is not counted."""
        about = (outcome.group, outcome.version, outcome.resource)
        if outcome.verdict is Verdict.PASSED:
            self._passed.labels(*about).inc()
        elif outcome.verdict is Verdict.REFUSED:
            self._failed.labels(*about, "invalid_resource").inc()
        if outcome.overridden:
            self.preflight(Came.OVERRIDDEN)
        if outcome.warnings:
            self._warnings.labels(outcome.resource).inc(outcome.warnings)

    def not_validated(self, reason: str) -> None:
        """One request was no review that could be answered."""
        self._failed.labels("", "", "", reason).inc()

    def preflight(self, came: Came) -> None:
        """One object was to be tried."""
        self._preflights.labels(came.value).inc()

    def enforced(self, now: bool) -> None:
        """Whether the API server refuses what could not be checked."""
        self._enforced.set(int(now))

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
