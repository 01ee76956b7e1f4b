"""Telemetry: metrics, access logs and traces of some workloads.

Source: https://istio.io/latest/docs/reference/config/telemetry/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Flag, Labels, Map, Model, Real, Text, TimeSpan, planned, problem
from mesh.istio.schema import Cel, Schema, at_most_one, exactly_one
from mesh.istio.selectors import (
    GATEWAY_NAME,
    ONE_WAY_TO_SELECT,
    PolicyTargetReference,
    TargetRefs,
    WorkloadSelector,
    check_one_way_to_select,
)
from mesh.istio.telemetry_rules import check_cardinality, check_expression, check_label
from mesh.istio.texts import Value
from mesh.problems import FieldProblem, Path, Step
from mesh.substitution import format_errors

Rules = Iterator[FieldProblem]


class WorkloadMode(StrEnum):
    """Which side of a request reports it."""

    CLIENT_AND_SERVER = "CLIENT_AND_SERVER"
    CLIENT = "CLIENT"
    SERVER = "SERVER"


class IstioMetric(StrEnum):
    """Istio's standard metrics."""

    ALL_METRICS = "ALL_METRICS"
    REQUEST_COUNT = "REQUEST_COUNT"
    REQUEST_DURATION = "REQUEST_DURATION"
    REQUEST_SIZE = "REQUEST_SIZE"
    RESPONSE_SIZE = "RESPONSE_SIZE"
    TCP_OPENED_CONNECTIONS = "TCP_OPENED_CONNECTIONS"
    TCP_CLOSED_CONNECTIONS = "TCP_CLOSED_CONNECTIONS"
    TCP_SENT_BYTES = "TCP_SENT_BYTES"
    TCP_RECEIVED_BYTES = "TCP_RECEIVED_BYTES"
    GRPC_REQUEST_MESSAGES = "GRPC_REQUEST_MESSAGES"
    GRPC_RESPONSE_MESSAGES = "GRPC_RESPONSE_MESSAGES"


class TagOperation(StrEnum):
    """What is done with a label of a metric."""

    UPSERT = "UPSERT"
    REMOVE = "REMOVE"


class ProviderRef(Model):
    name: Value
    """Name of a provider in the mesh's `extensionProviders`."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the provider has no name", hint="name one of the mesh's extensionProviders")


class LiteralTag(Model):
    value: Value
    """The value."""

    def rules(self) -> Rules:
        if not self.value:
            yield problem("value", says="the tag has no value", hint="write one")


class NamedTag(Model):
    """A tag whose value is looked up under a name."""

    name: Value
    """Where the value comes from: the name of a header or of an environment variable."""
    default_value: Text = ""
    """The value when there is none there."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="it has no name", hint="name the header or environment variable")


class FormatterTag(Model):
    value: Value
    """Envoy's format string for access logs, such as `%REQ(:path)%`."""

    def rules(self) -> Rules:
        if not self.value:
            yield problem("value", says="the format is empty", hint="write one such as %REQ(:path)%")
        for wrong in format_errors(self.value):
            yield problem("value", says=wrong.message, hint=wrong.hint, value=self.value)


class CustomTag(Model):
    cel = (exactly_one("literal", "environment", "header", "formatter"),)

    literal: LiteralTag | None = None
    """The same value always."""
    environment: NamedTag | None = None
    """The value of an environment variable of the proxy."""
    header: NamedTag | None = None
    """The value of a header of the request."""
    formatter: FormatterTag | None = None
    """A value in Envoy's format for access logs."""

    def rules(self) -> Rules:
        kinds = [n for n in ("literal", "environment", "header", "formatter") if getattr(self, n) is not None]
        if len(kinds) != 1:
            says = "the tag has no value" if not kinds else f"{' and '.join(kinds)} exclude each other"
            yield problem(says=says, hint="set exactly one of literal, environment, header, formatter")


class TracingSelector(Model):
    mode: WorkloadMode = WorkloadMode.CLIENT_AND_SERVER
    """Which side of a request reports it."""


class Tracing(Model):
    match: TracingSelector | None = None
    """Which requests; all of them without it."""
    providers: tuple[ProviderRef, ...] = ()
    """Where traces go; the mesh's default when empty."""
    random_sampling_percentage: Annotated[Real | None, Schema(minimum=0, maximum=100)] = None
    """Share of requests that are traced when the caller has not decided, 0 to 100."""
    disable_span_reporting: Flag | None = None
    """Report no spans, and keep passing the caller's context on."""
    custom_tags: Map[CustomTag] = EMPTY
    """Tags to add to each span, by name."""
    use_request_id_for_trace_sampling: Flag | None = None
    """Decide on sampling by the request's id, so that all proxies decide alike; they do unless this is false."""
    enable_istio_tags: Flag | None = None
    """Add `istio.mesh_id`, `istio.cluster_id`, `istio.namespace`, `istio.canonical_service` and
    `istio.canonical_revision`; they are added unless this is false."""
    disable_context_propagation: Flag | None = None
    """Report spans, and tell nobody further down of the trace."""

    def rules(self) -> Rules:
        yield from check.check_percentage(("randomSamplingPercentage",), self.random_sampling_percentage)
        if len(self.providers) > 1:
            yield problem("providers", says="traces go to the first provider only", hint="keep one", warning=True)


class MetricSelector(Model):
    cel = (at_most_one("metric", "customMetric"),)

    metric: IstioMetric | None = None
    """One of Istio's standard metrics; all of them when neither this nor customMetric is set."""
    custom_metric: Value | None = None
    """Any other metric, by name."""
    mode: WorkloadMode = WorkloadMode.CLIENT_AND_SERVER
    """Which side of a request reports it."""

    def rules(self) -> Rules:
        if self.metric is not None and self.custom_metric is not None:
            says = "metric and customMetric exclude each other"
            yield problem("customMetric", says=says, hint="keep one of the two")
        if self.custom_metric == "":
            yield problem("customMetric", says="the metric has no name", hint="name it, or use metric")


class TagOverride(Model):
    cel = (
        Cel(
            "(has(self.operation) && self.operation == 'REMOVE') || (has(self.value) && self.value != '')",
            "UPSERT has no value: set value",
        ),
        Cel("!has(self.operation) || self.operation != 'REMOVE' || !has(self.value)", "REMOVE has no value: remove it"),
    )

    operation: TagOperation = TagOperation.UPSERT
    """UPSERT adds or changes the label, REMOVE takes it away."""
    value: Text = ""
    """Expression for the label's value."""

    def rules(self) -> Rules:
        if self.operation is TagOperation.UPSERT and not self.value:
            yield problem("value", says="UPSERT has no value", hint='write an expression, such as "request.host"')
        if self.operation is TagOperation.REMOVE and "value" in self.model_fields_set:
            yield problem("value", says="REMOVE has no value", hint="remove value, or use UPSERT")
        if self.operation is TagOperation.UPSERT and self.value:
            yield from check_expression(("value",), self.value)


class MetricsOverride(Model):
    match: MetricSelector | None = None
    """Which metrics; all of them without it."""
    disabled: Flag | None = None
    """Do not report them."""
    tag_overrides: Map[TagOverride] = EMPTY
    """Labels to change, by name."""

    def rules(self) -> Rules:
        for name in self.tag_overrides:
            yield from check_label(("tagOverrides", name), name)

    @property
    def metrics(self) -> frozenset[IstioMetric]:
        """Those of Istio's that it is about."""
        match = self.match or MetricSelector()
        if match.custom_metric is not None:
            return frozenset()
        if match.metric in (None, IstioMetric.ALL_METRICS):
            return frozenset(IstioMetric)
        return frozenset({match.metric})


class Metrics(Model):
    providers: tuple[ProviderRef, ...] = ()
    """Where metrics go; the mesh's default when empty."""
    overrides: tuple[MetricsOverride, ...] = ()
    """Changes to single metrics, in order."""
    reporting_interval: TimeSpan | None = planned()
    """Time between reports of TCP connections; 5s by default."""

    def rules(self) -> Rules:
        yield from check.check_duration(("reportingInterval",), self.reporting_interval)
        found = {metric: self._added(metric) for metric in IstioMetric}
        for added in dict.fromkeys(tuple(sorted(each.items())) for each in found.values()):
            worst = next(check_cardinality(("overrides",), dict(added)), None)
            if worst is not None:
                yield worst
                return

    def _added(self, metric: IstioMetric) -> dict[str, str]:
        """The labels that it adds to `metric`, with their expressions."""
        return {
            name: tag.value
            for override in self.overrides
            if metric in override.metrics
            for name, tag in override.tag_overrides.items()
            if tag.operation is TagOperation.UPSERT
        }


class LogSelector(Model):
    mode: WorkloadMode = WorkloadMode.CLIENT_AND_SERVER
    """Which side of a request logs it."""


class LogFilter(Model):
    expression: Text = ""
    """CEL expression that holds for what is logged, such as `response.code >= 400`."""

    def rules(self) -> Rules:
        if self.expression:
            yield from check_expression(("expression",), self.expression)


class AccessLogging(Model):
    match: LogSelector | None = None
    """Which requests; all of them without it."""
    providers: tuple[ProviderRef, ...] = ()
    """Where logs go; the mesh's default when empty."""
    disabled: Flag | None = None
    """Log nothing."""
    filter: LogFilter | None = None
    """Which of the requests are logged."""


class Telemetry(Model):
    """The spec. What the workload's policy leaves open, that of the namespace and then that of the mesh says."""

    cel = (ONE_WAY_TO_SELECT,)

    selector: WorkloadSelector | None = None
    """The workloads that it is for; all of the namespace (of the mesh, in the root namespace) without it."""
    target_ref: PolicyTargetReference | None = None
    """The Gateway that it is for; use targetRefs."""
    target_refs: TargetRefs = ()
    """Gateways of the Gateway API that it is for, instead of selector: pods with the label
    `gateway.networking.k8s.io/gateway-name`. Services, ServiceEntries and GatewayClasses choose waypoints alone, of
    which there are none here."""
    tracing: tuple[Tracing, ...] = ()
    """Traces."""
    metrics: tuple[Metrics, ...] = ()
    """Metrics."""
    access_logging: tuple[AccessLogging, ...] = ()
    """Access logs."""

    def rules(self) -> Rules:
        yield from check_one_way_to_select(self.selector, self.target_ref, self.target_refs)
        for path, target in self.targets_at:
            if not target.is_gateway:
                yield _of_a_waypoint(target, *path)

    @property
    def choices(self) -> tuple[Labels, ...]:
        """The labels of the pods that it is for, any of these; none at all where it is for all of its namespace."""
        if self.selector is not None and self.selector.match_labels:
            return (self.selector.match_labels,)
        return tuple({GATEWAY_NAME: target.name} for _, target in self.targets_at if target.is_gateway)

    @property
    def targets_at(self) -> tuple[tuple[Path, PolicyTargetReference], ...]:
        """The targets, and where in the spec each stands."""
        if self.target_refs:
            return tuple((("targetRefs", index), target) for index, target in enumerate(self.target_refs))
        return ((("targetRef",), self.target_ref),) if self.target_ref is not None else ()


def _of_a_waypoint(target: PolicyTargetReference, *path: Step) -> FieldProblem:
    says = f"a {target.kind} chooses waypoints, and there are none: it is for no sidecar and no gateway"
    return problem(*path, "kind", says=says, hint="choose workloads by selector, or a Gateway", warning=True)
