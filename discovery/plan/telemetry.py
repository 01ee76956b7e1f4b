"""What a proxy reports: metrics, access logs and traces, by the mesh's settings and its Telemetry objects.

Of the objects that are for a workload, that of the root namespace is applied first, then the namespace's, then the one
that selects the workload; of several of one width the oldest counts.
Source: https://istio.io/latest/docs/reference/config/telemetry/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from discovery.plan.origins import Origin, Problem, origin_of, problem_with
from discovery.plan.reporting import AccessLog, Metric, MetricName, Reporting, Tracing
from discovery.plan.services import Services
from discovery.plan.tracing import missing_collector, missing_own_collector, own_tracing, tracing_of
from mesh.annotations import PROXY_CONFIG
from mesh.istio import telemetry as objects
from mesh.istio.base import IstioObject, age
from mesh.istio.cel import parse_cel
from mesh.istio.telemetry import (
    AccessLogging,
    IstioMetric,
    MetricsOverride,
    ProviderRef,
    TagOperation,
    Telemetry,
    WorkloadMode,
)
from mesh.objects import Key
from mesh.providers import (
    BUILT_IN_LOG,
    BUILT_IN_METRICS,
    STANDARD_OUTPUT,
    ExtensionProvider,
    ProxyTracing,
    json_fields,
)
from mesh.settings import MeshSettings

Policy = IstioObject[Telemetry]

_MOST = 1024
_SIDES = (WorkloadMode.CLIENT, WorkloadMode.SERVER)
_NAMES = {
    MetricName.REQUESTS: IstioMetric.REQUEST_COUNT,
    MetricName.DURATION: IstioMetric.REQUEST_DURATION,
    MetricName.REQUEST_BYTES: IstioMetric.REQUEST_SIZE,
    MetricName.RESPONSE_BYTES: IstioMetric.RESPONSE_SIZE,
    MetricName.OPENED: IstioMetric.TCP_OPENED_CONNECTIONS,
    MetricName.CLOSED: IstioMetric.TCP_CLOSED_CONNECTIONS,
    MetricName.SENT: IstioMetric.TCP_SENT_BYTES,
    MetricName.RECEIVED: IstioMetric.TCP_RECEIVED_BYTES,
}


@dataclass(frozen=True, slots=True, eq=False)
class Telemetries:
    """All of them, by width: `workloads` holds those with a selector, oldest first; the others are merged already."""

    mesh: Reporting
    namespaces: Mapping[str, Reporting]
    workloads: Mapping[str, tuple[Policy, ...]]
    problems: tuple[Problem, ...]
    _settings: MeshSettings
    _services: Services
    _wide: Mapping[str, tuple[Policy, ...]]
    """Namespace -> the policies that are for all of it, the mesh's first; "" for those without one of their own."""
    _selected: dict[tuple[Policy | str, str], Reporting] = field(default_factory=dict)
    """What was made so far of the policies with selectors, and of what pods say of tracing themselves."""

    def of_workload(self, namespace: str, labels: tuple[tuple[str, str], ...], proxy_config: str = "") -> Reporting:
        """What the pod with `labels` in `namespace` reports, whose own ProxyConfig is the text `proxy_config`."""
        candidates = self.workloads.get(namespace)
        found = next((each for each in candidates if _selects(each, dict(labels))), None) if candidates else None
        own = own_tracing(proxy_config)
        if found is None and own is None:
            return self.namespaces.get(namespace, self.mesh)
        key = (found or namespace, "" if own is None else proxy_config)
        if key not in self._selected:
            wide = self._wide.get(namespace, self._wide[""])
            policies = wide if found is None else (*wide, found)
            self._selected[key] = _reporting(self._settings, policies, self._services, own)
        return self._selected[key]

    def problems_of(self, pod: Key, proxy_config: str) -> tuple[Problem, ...]:
        """With what the pod says of tracing itself."""
        own = own_tracing(proxy_config)
        says = "" if own is None else missing_own_collector(self._settings, own, self._services)
        if not says:
            return ()
        origin = Origin("Pod", pod.namespace, pod.name, f"metadata.annotations[{PROXY_CONFIG}].tracing.zipkin.address")
        return (Problem(origin, says, "no spans are sent until that service is there: correct it, or deploy it"),)


def _selects(policy: Policy, labels: Mapping[str, str]) -> bool:
    return any(each.items() <= labels.items() for each in policy.spec.choices)


def telemetries(things: Iterable[IstioObject[Any]], settings: MeshSettings, services: Services) -> Telemetries:
    wide: dict[str, Policy] = {}
    workloads: dict[str, list[Policy]] = {}
    problems: list[Problem] = []
    for policy in sorted(things, key=age):
        problems.extend(_unknown_providers(policy, settings, services))
        if policy.spec.choices:
            workloads.setdefault(policy.namespace, []).append(policy)
        elif policy.spec.targets_at:
            continue  # for waypoints, of which there are none
        elif policy.namespace in wide:
            first = wide[policy.namespace]
            says = f"{first.namespace}/{first.name} is older and covers the same workloads: this one has no effect"
            problems.append(
                problem_with(policy, "spec.selector", says, "keep one for the namespace, or select workloads by labels")
            )
        else:
            wide[policy.namespace] = policy
    root = wide.pop(settings.root_namespace, None)
    everywhere = (root,) if root is not None else ()
    by_namespace = {"": everywhere} | {namespace: (*everywhere, policy) for namespace, policy in wide.items()}
    return Telemetries(
        mesh=_reporting(settings, everywhere, services),
        namespaces={namespace: _reporting(settings, by_namespace[namespace], services) for namespace in wide},
        workloads={namespace: tuple(found) for namespace, found in workloads.items()},
        problems=tuple(problems),
        _settings=settings,
        _services=services,
        _wide=by_namespace,
    )


def _reporting(
    settings: MeshSettings, policies: tuple[Policy, ...], services: Services, own: ProxyTracing | None = None
) -> Reporting:
    specs = [policy.spec for policy in policies]
    metrics = [tuple(_metrics(settings, specs, side)) for side in _SIDES]
    logs = [tuple(_logs(settings, specs, side)) for side in _SIDES]
    traces = [tracing_of(settings, _traced(specs, side), services, own) for side in _SIDES]
    return _made(*metrics, *logs, *traces, tuple(map(origin_of, policies)))


@lru_cache(maxsize=_MOST)
def _made(
    client_metrics: tuple[Metric, ...],
    server_metrics: tuple[Metric, ...],
    client_logs: tuple[AccessLog, ...],
    server_logs: tuple[AccessLog, ...],
    client_tracing: Tracing | None,
    server_tracing: Tracing | None,
    origins: tuple[Origin, ...],
) -> Reporting:
    """The same object for the same values: what is rendered with it is found again by it."""
    return Reporting(client_metrics, server_metrics, client_logs, server_logs, client_tracing, server_tracing, origins)


def reachable(reporting: Reporting, destinations: frozenset[str]) -> Reporting:
    """The same, without traces to a collector that is not among `destinations`: Envoy would refuse the listener."""
    to = {each.destination for each in (reporting.client_tracing, reporting.server_tracing) if each is not None}
    if to <= destinations:
        return reporting
    metrics, logs = (reporting.client_metrics, reporting.server_metrics), (reporting.client_logs, reporting.server_logs)
    return _made(*metrics, *logs, None, None, reporting.origins)


# ---- metrics


@dataclass
class _Wanted:
    on: bool = True
    labels: dict[str, str | None] = field(default_factory=dict)
    """Name -> expression; None: without it."""


def _metrics(settings: MeshSettings, specs: list[Telemetry], side: WorkloadMode) -> Iterator[Metric]:
    providers = settings.default_providers.metrics or (BUILT_IN_METRICS,)
    wanted = {name: _Wanted() for name in MetricName}
    for spec in specs:
        for metrics in spec.metrics:
            providers = tuple(provider.name for provider in metrics.providers) or providers
            for override in metrics.overrides:
                if _is_for(override.match.mode if override.match else None, side):
                    _override(wanted, override)
    if not any(_is_prometheus(settings, name) for name in providers):
        return
    for name, each in wanted.items():
        if each.on:
            added = tuple(sorted((label, text) for label, text in each.labels.items() if text is not None))
            yield Metric(name, added, tuple(sorted(label for label, text in each.labels.items() if text is None)))


def _override(wanted: Mapping[MetricName, _Wanted], override: MetricsOverride) -> None:
    for name, each in wanted.items():
        if _NAMES[name] not in override.metrics:
            continue
        if override.disabled is not None:
            each.on = not override.disabled
        for label, tag in override.tag_overrides.items():
            each.labels[label] = parse_cel(tag.value).text if tag.operation is TagOperation.UPSERT else None


def _is_prometheus(settings: MeshSettings, name: str) -> bool:
    provider = _provider(settings, name)
    return name == BUILT_IN_METRICS if provider is None else provider.prometheus is not None


# ---- access logs


def _logs(settings: MeshSettings, specs: list[Telemetry], side: WorkloadMode) -> Iterator[AccessLog]:
    """A more specific object says which providers there are, if it names any; what it says of others is about those
    that were there before."""
    defaults = settings.default_providers.access_logging or ((BUILT_IN_LOG,) if settings.access_log_file else ())
    filters: dict[str, str | None] = dict.fromkeys(defaults, "")
    for spec in specs:
        entries = [each for each in spec.access_logging if _is_for(each.match.mode if each.match else None, side)]
        if any(each.providers for each in entries):
            filters = {}
        for entry in entries:
            names = tuple(each.name for each in entry.providers) or tuple(filters) or (BUILT_IN_LOG,)
            filters |= dict.fromkeys(names, _filter(entry))
    for name, expression in filters.items():
        log = _log(settings, name)
        if log is not None and expression is not None:
            yield replace(log, expression=expression)


def _filter(entry: AccessLogging) -> str | None:
    """None: nothing is logged."""
    if entry.disabled:
        return None
    return parse_cel(entry.filter.expression).text if entry.filter and entry.filter.expression else ""


def _log(settings: MeshSettings, name: str) -> AccessLog | None:
    provider = _provider(settings, name)
    file = provider.envoy_file_access_log if provider else None
    if file is not None:
        return AccessLog(file.path, file.log_format.text, tuple((file.log_format.labels or {}).items()))
    if name != BUILT_IN_LOG or provider is not None:
        return None
    path, text = settings.access_log_file or STANDARD_OUTPUT, settings.access_log_format
    if settings.access_log_encoding == "TEXT":
        return AccessLog(path, text)
    return AccessLog(path, fields=tuple(json_fields(text).items()) if text else _DEFAULT_FIELDS)


_DEFAULT_FIELDS = (
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
)
"""Of Istio's access log as JSON."""


# ---- both


def _is_for(mode: WorkloadMode | None, side: WorkloadMode) -> bool:
    return mode in (None, WorkloadMode.CLIENT_AND_SERVER, side)


def _provider(settings: MeshSettings, name: str) -> ExtensionProvider | None:
    return next((each for each in settings.extension_providers if each.name == name), None)


def _traced(specs: list[Telemetry], side: WorkloadMode) -> Iterator[objects.Tracing]:
    return (each for spec in specs for each in spec.tracing if _is_for(each.match.mode if each.match else None, side))


def _unknown_providers(policy: Policy, settings: MeshSettings, services: Services) -> Iterator[Problem]:
    known = {BUILT_IN_LOG, BUILT_IN_METRICS, *(each.name for each in settings.extension_providers)}
    spec = policy.spec
    parts: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("metrics", spec.metrics),
        ("accessLogging", spec.access_logging),
        ("tracing", spec.tracing),
    )
    for part, entries in parts:
        for number, entry in enumerate(entries):
            refs: tuple[ProviderRef, ...] = entry.providers
            for index, ref in enumerate(refs):
                provider = _provider(settings, ref.name)
                says = missing_collector(provider, services) if provider is not None else ""
                if says:
                    hint = "no spans are sent until that service is there: correct extensionProviders, or deploy it"
                    yield problem_with(policy, f"spec.{part}[{number}].providers[{index}].name", says, hint)
                if ref.name not in known:
                    yield problem_with(
                        policy,
                        f"spec.{part}[{number}].providers[{index}].name",
                        f"there is no provider {ref.name!r} in the mesh's extensionProviders",
                        f"define it there, or use one of {', '.join(sorted(known))}",
                    )
