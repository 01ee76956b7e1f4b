"""The ca's metrics, under istiod's names where istiod has one.

Source: Istio, security/pkg/server/ca/monitoring.go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ca.rotation.state import Rotation
from kube.write_behind import Counts
from mesh.errors import HeddleError
from serving.counters import PlainCounter, exposition

_REFUSALS = ("busy", "forbidden", "invalid", "revoked", "unauthenticated")
"""Codes that are counted from 0 on, so that Prometheus sees the first refusal as an increase."""

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


_CITADEL_COUNTS = {
    "csr_count": "Certificate signing requests received",
    "authentication_failure_count": "Requests whose sender did not prove who it is",
    "csr_parsing_err_count": "Requests that are not a signing request that can be granted",
    "csr_sign_err_count": "Requests that failed at signing or at recording",
    "success_cert_issuance_count": "Certificates issued",
}


class _Ends(Collector):
    """When each certificate of the ca's own ends, as it is when somebody asks; of root and intermediate also what is
    left, as istiod says it."""

    def __init__(self, ends: Callable[[], Mapping[str, float]], now: Callable[[], float]) -> None:
        self._ends, self._now = ends, now

    def collect(self) -> Iterator[Metric]:
        ends = self._ends()
        for certificate, name in (("root", "root_cert"), ("intermediate", "cert_chain")):
            prefix, meaning = f"citadel_server_{name}_expiry", f"the {certificate} certificate ends"
            left = ends[certificate] - self._now()
            yield GaugeMetricFamily(f"{prefix}_timestamp", f"When {meaning} (Unix seconds)", ends[certificate])
            yield GaugeMetricFamily(f"{prefix}_seconds", f"Seconds until {meaning}", left)
        yield GaugeMetricFamily(
            "heddle_ca_certificate_expiry_timestamp_seconds", "When the serving certificate ends", ends["serving"]
        )


class _Rotation(Collector):
    """Where the rotation of the root stands, as this replica has read it."""

    def __init__(self, rotation: Callable[[], Rotation]) -> None:
        self._rotation = rotation

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "heddle_ca_rotation_phase_since_timestamp_seconds",
            "When the phase of the root's rotation began; 0 where there was none",
            labels=["phase", "paused"],
        )
        try:
            state = self._rotation()
        except HeddleError:  # it is damaged, which `heddle rotate status` tells; everything else is to be seen
            return
        family.add_metric([str(state.phase), str(state.paused).lower()], state.since)
        yield family


class _FirstEnds(Collector):
    """When the first of the workloads' certificates ends, as it is when somebody asks."""

    def __init__(self, ends: Callable[[], Mapping[str, float]]) -> None:
        self._ends = ends

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "heddle_ca_workload_certificate_expiry_timestamp_seconds",
            "When the first of the newest certificates of pods that run ends, by what renews it",
            labels=["holder"],
        )
        for holder, at in self._ends().items():
            family.add_metric([holder], at)
        yield family


class Metrics:
    """The ca's metrics, in a registry of their own."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._registry, self._now = CollectorRegistry(), now
        self._citadel = {
            name: PlainCounter(f"citadel_server_{name}", meaning, registry=self._registry)
            for name, meaning in _CITADEL_COUNTS.items()
        }
        issued = Counter(
            "heddle_ca_certificates_issued",
            "Certificates issued, by how the caller proved itself",
            ["caller"],
            registry=self._registry,
        )
        self._issued = {kind: issued.labels(kind) for kind in ("token", "certificate", "pod")}
        self._refused = Counter(
            "heddle_ca_requests_refused",
            "Requests answered with an error, by its code",
            ["code"],
            registry=self._registry,
        )
        for code in _REFUSALS:
            self._refused.labels(code)
        self._seconds = Histogram(
            "heddle_ca_issue_seconds",
            "Time from the request read to the certificate signed",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._revoked = Gauge(
            "heddle_ca_revoked_certificates", "Certificates that are revoked", registry=self._registry
        )
        self._lists = Gauge(
            "heddle_ca_revocation_lists", "Revocation lists that proxies are given", registry=self._registry
        )

    def asked(self) -> None:
        """One request for a certificate came."""
        self._citadel["csr_count"].inc()

    def issued(self, caller: str, seconds: float) -> None:
        """One certificate went out."""
        self._citadel["success_cert_issuance_count"].inc()
        self._issued[caller].inc()
        self._seconds.observe(seconds)

    def refused(self, code: str) -> None:
        """One request was answered with an error."""
        self._refused.labels(code).inc()

    def certificate_refused(self, error: HeddleError) -> None:
        """One request for a certificate failed; it is counted by its code too, when it is answered."""
        if error.status == 401:
            self._citadel["authentication_failure_count"].inc()
        elif error.status in (400, 413) and error.field == "csr":
            self._citadel["csr_parsing_err_count"].inc()
        elif error.status >= 500:
            self._citadel["csr_sign_err_count"].inc()

    def ends(self, ends: Callable[[], Mapping[str, float]]) -> None:
        """Show when `root`, `intermediate` and `serving` end (Unix seconds), as `ends` says whenever it is asked."""
        self._registry.register(_Ends(ends, self._now))

    def rotation(self, rotation: Callable[[], Rotation]) -> None:
        """Show where the rotation of the root stands, as `rotation` says whenever it is asked."""
        self._registry.register(_Rotation(rotation))

    def first_ends(self, ends: Callable[[], Mapping[str, float]]) -> None:
        """Show when the first of the workloads' certificates ends (Unix seconds), by holder: `agent` or `volume`."""
        self._registry.register(_FirstEnds(ends))

    def revoked(self, count: Callable[[], float], lists: Callable[[], float]) -> None:
        """Show how many certificates are revoked, and how many lists tell proxies so."""
        self._revoked.set_function(count)
        self._lists.set_function(lists)

    def written_behind(self, counts: Callable[[], Mapping[str, tuple[int, Counts]]]) -> None:
        """Show what `counts` says whenever the metrics are read."""
        self._registry.register(_WrittenBehind(counts))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return exposition(self._registry)
