"""Counters of the webhook, under Istio's names where Istio has one.

Source: Istio, pkg/kube/inject/monitoring.go, pkg/webhooks/validation/server/monitoring.go.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.counters import PlainCounter, exposition
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

        self._passed = PlainCounter(
            "galley_validation_passed",
            "Objects that were admitted after they were checked",
            ["group", "version", "resource"],
            registry=self._registry,
        )
        self._failed = PlainCounter(
            "galley_validation_failed",
            "Objects that were refused",
            ["group", "version", "resource", "reason"],
            registry=self._registry,
        )
        self._unread = PlainCounter(
            "galley_validation_http_error",
            "Requests that were no review to be answered, by the status that they got",
            ["status"],
            registry=self._registry,
            known=[("400",)],
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
            self._passed.inc(*about)
        elif outcome.verdict is Verdict.REFUSED:
            self._failed.inc(*about, "invalid_resource")
        if outcome.overridden is not None:
            self.preflight(Came.OVERRIDDEN)
        if outcome.warnings:
            self._warnings.labels(outcome.resource).inc(outcome.warnings)

    def not_validated(self, status: int) -> None:
        """One request was no review that could be answered; it got this status."""
        self._unread.inc(str(status))

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
        return exposition(self._registry)

    def _counter(self, name: str, doc: str) -> Counter:
        return Counter(f"sidecar_injection_{name}", doc, registry=self._registry)
