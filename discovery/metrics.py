"""Discovery's metrics, under the names, types and labels of istiod's.

Source: Istio, pilot/pkg/xds/monitoring.go, pkg/xds/monitoring.go, pilot/pkg/model/push_context.go. docs/telemetry.md
says which of istiod's are not here, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from discovery.versions import Delta
from kube.source import Changed, Event, Listed
from mesh.kinds import KINDS
from mesh.settings import MeshSettings
from mesh.snapshot import Snapshot
from mesh.wire import ResourceType
from serving.counters import PlainCounter, exposition

VERSION = MeshSettings().heddle.image.rpartition(":")[2]

_PUSH = (0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0)
_QUEUE = (0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0)
# istiod's bounds, which queries name, and finer ones below: a change is applied within milliseconds.
_CONVERGENCE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, *_QUEUE[1:])
_SNAPSHOT = (0.01, 0.1, 0.5, 1.0, 3.0, 5.0)
_BYTES = (1.0, 10_000.0, 1_000_000.0, 4_000_000.0, 10_000_000.0, 40_000_000.0)

_XDS: Mapping[str, str] = {
    ResourceType.CLUSTERS: "cds",
    ResourceType.ENDPOINTS: "eds",
    ResourceType.LISTENERS: "lds",
    ResourceType.ROUTES: "rds",
    ResourceType.VIRTUAL_HOSTS: "rds",
    ResourceType.SECRETS: "sds",
}
_ISTIO = frozenset(kind.kind for kind in KINDS if kind.of_istio)
_REGISTRY = {"Service": "Services", "Pod": "Pods", "Node": "Nodes", "Namespace": "Namespaces"}
_TRIGGERS = {
    "Service": "service",
    "ServiceEntry": "service",
    "EndpointSlice": "endpoint",
    "Pod": "endpoint",
    "WorkloadEntry": "endpoint",
    "Node": "endpoint",
    "Namespace": "namespace",
    "Secret": "secret",
    "ConfigMap": "global",
}


def xds_type(kind: str) -> str:
    """What Istio's metrics call a type of resource. Route configurations travel as two types of ours."""
    return _XDS.get(kind, kind)


class _Connected(Collector):
    """Connected proxies by the version of their agents; this version's are there when there are none, too."""

    def __init__(self) -> None:
        self.versions: Callable[[], Iterable[str]] = tuple

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("pilot_xds", "Connected proxies, by the version of their agents", labels=["version"])
        counts = Counter(self.versions())
        for version in (VERSION, *(other for other in counts if other != VERSION)):
            family.add_metric([version], counts[version])
        yield family


class Metrics:
    """In a registry of their own. Durations are in seconds."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        types = [(name,) for name in sorted(set(_XDS.values()))]

        def histogram(name: str, meaning: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(name, meaning, labels, buckets=tuple(buckets), registry=registry)

        def counter(name: str, meaning: str, *labels: str, known: Iterable[tuple[str, ...]] = ()) -> PlainCounter:
            return PlainCounter(name, meaning, labels, registry=registry, known=known)

        Gauge("pilot_info", "The version of discovery", ["version"], registry=registry).labels(VERSION).set(1)
        self._pushes = counter("pilot_xds_pushes", "Answers with changes, by type of resource", "type", known=types)
        self._rejects = counter("pilot_total_xds_rejects", "Configuration that Envoy refused", "type", known=types)
        self._errors = counter("pilot_total_xds_internal_errors", "Configuration that could not be computed")
        self._config_events = counter("pilot_k8s_cfg_events", "Changes of Istio's objects", "type", "event")
        self._registry_events = counter("pilot_k8s_reg_events", "Changes of Kubernetes' objects", "type", "event")
        self._triggers = counter("pilot_push_triggers", "Snapshots published, by what changed", "type")
        self._convergence = histogram(
            "pilot_proxy_convergence_time", "From the arrival of a change to a proxy's having applied it", _CONVERGENCE
        )
        self._queue = histogram("pilot_proxy_queue_time", "For how long a proxy waited for its turn", _QUEUE)
        self._push = histogram("pilot_xds_push_time", "Time to compute what a proxy should have, all types", _PUSH)
        self._size = histogram("pilot_xds_config_size_bytes", "Resources in an answer", _BYTES, "type")
        self._debounce = histogram("pilot_debounce_time", "From the first change of a burst to its snapshot", _PUSH)
        self._snapshot = histogram("pilot_pushcontext_init_seconds", "Time to make a snapshot", _SNAPSHOT)
        self._connected = _Connected()
        registry.register(self._connected)
        self._services = Gauge("pilot_services", "Services, ServiceEntries' hosts included", registry=registry)
        self._virtual_services = Gauge("pilot_virt_services", "VirtualServices", registry=registry)

    # ---- what comes in

    def event(self, event: Event) -> None:
        """The API server told of a change. A whole list of a kind is one event, `list`."""
        match event:
            case Listed():
                what = "list"
            case Changed(deleted=True):
                what = "delete"
            case Changed(created=True):
                what = "add"
            case Changed():
                what = "update"
            case _:
                return
        if event.kind in _ISTIO:
            self._config_events.inc(event.kind, what)
        else:
            self._registry_events.inc(_REGISTRY.get(event.kind, event.kind), what)

    def published(self, kinds: Iterable[str], waited: float, took: float) -> None:
        """A snapshot with changes of these kinds: it was `waited` for the end of the burst, and `took` to be made."""
        for trigger in {_TRIGGERS.get(kind, "config") for kind in kinds}:
            self._triggers.inc(trigger)
        self._debounce.observe(waited)
        self._snapshot.observe(took)

    # ---- what goes out

    def dequeued(self, waited: float) -> None:
        """A proxy that a change may concern had its turn."""
        self._queue.observe(waited)

    def compiled(self, took: float, *, failed: bool) -> None:
        """What a proxy should have was computed, or could not be."""
        self._push.observe(took)
        if failed:
            self._errors.inc()

    def pushed(self, delta: Delta) -> None:
        """An answer with these changes went out."""
        sizes: dict[str, int] = dict.fromkeys(map(xds_type, delta.types), 0)
        for kind, entries in delta.changed.items():
            sizes[xds_type(kind)] += sum(len(resource) for _, resource in entries.values())
        for kind, size in sizes.items():
            self._pushes.inc(kind)
            self._size.labels(kind).observe(size)

    def rejected(self, kind: str) -> None:
        """Envoy refuses something of this type that it did not refuse before."""
        self._rejects.inc(xds_type(kind))

    def converged(self, seconds: float) -> None:
        """A proxy has applied a change, so long after it arrived here."""
        self._convergence.observe(seconds)

    # ---- what there is

    def connected(self, versions: Callable[[], Iterable[str]]) -> None:
        """Ask `versions` for the agents' version of each connected proxy whenever metrics are read."""
        self._connected.versions = versions

    def known(self, snapshot: Callable[[], Snapshot | None]) -> None:
        """Ask `snapshot` for the newest one whenever metrics are read; None: there is none yet."""
        self._services.set_function(lambda: _services(snapshot()))
        self._virtual_services.set_function(lambda: _of_kind(snapshot(), "VirtualService"))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return exposition(self._registry)


def _services(snapshot: Snapshot | None) -> float:
    if snapshot is None:
        return 0
    return len(snapshot.services) + sum(len(entry.spec.hosts) for entry in snapshot.of("ServiceEntry").values())


def _of_kind(snapshot: Snapshot | None, kind: str) -> float:
    return 0 if snapshot is None else len(snapshot.of(kind))
