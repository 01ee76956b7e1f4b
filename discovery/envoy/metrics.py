"""Istio's metrics, by Envoy's stats access logger: a line of the log is a count, its fields are the labels.

All labels of a series are one tag, which the agent unpacks (mesh/reported.py).
Sources: https://istio.io/latest/docs/reference/config/metrics/, and Envoy's page "Substitution formatter".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from discovery.envoy.access_log import CONNECTION_END
from discovery.envoy.values import Json
from discovery.plan.reporting import Metric, MetricName
from mesh.reported import GRPC_STATUS, REPORTER, SERVICE, TAG, packed
from mesh.workloads import METADATA, PEER_HEADER

MOST_SERIES = 1000
"""Of each metric at one filter chain: what is more than these is not counted. Envoy counts how often that was, in
`server.stats_overflow.counter` and `.histogram`; a series that is not used any more makes room (agent/bootstrap.py)."""
PEER_STATE = "heddle.peer"
"""The filter state that keeps who asks from the header, which the app does not see."""

_LOGGER = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config"
_HISTOGRAMS = {
    MetricName.DURATION: ("Milliseconds", "%DURATION%"),
    MetricName.REQUEST_BYTES: ("Bytes", "%BYTES_RECEIVED%"),
    MetricName.RESPONSE_BYTES: ("Bytes", "%BYTES_SENT%"),
}
_COUNTERS: dict[MetricName, Json] = {
    MetricName.REQUESTS: {"value_fixed": 1},
    MetricName.OPENED: {"value_fixed": 1},
    MetricName.CLOSED: {"value_fixed": 1},
    MetricName.SENT: {"value_format": "%BYTES_SENT%"},
    MetricName.RECEIVED: {"value_format": "%BYTES_RECEIVED%"},
}
_OF_HTTP = frozenset({MetricName.REQUESTS, *_HISTOGRAMS})


class Reporter(StrEnum):
    """Which end of a request counts it. PLAIN is the destination of what came without mutual TLS: nobody is believed
    to be who a header says."""

    SOURCE = "source"
    DESTINATION = "destination"
    PLAIN = "plain"


def http_metrics(metrics: Iterable[Metric], reporter: Reporter) -> list[Json]:
    """The access loggers of a connection manager that make the metrics of requests."""
    return _logger([each for each in metrics if each.name in _OF_HTTP], reporter)


def tcp_metrics(metrics: Iterable[Metric], reporter: Reporter) -> list[Json]:
    """Those of a TCP proxy, which logs when it has connected, too."""
    found = [each for each in metrics if each.name not in _OF_HTTP]
    opened = [each for each in found if each.name is MetricName.OPENED]
    ended = [each for each in found if each.name is not MetricName.OPENED]
    return [
        *_logger(opened, reporter, filter={"log_type_filter": {"types": ["TcpUpstreamConnected"]}}),
        *_logger(ended, reporter, filter=CONNECTION_END),
    ]


def _logger(metrics: Sequence[Metric], reporter: Reporter, **top: Json) -> list[Json]:
    if not metrics:
        return []
    counters = [{"stat": _stat(m, reporter), **_COUNTERS[m.name]} for m in metrics if m.name in _COUNTERS]
    histograms = [_histogram(m, reporter) for m in metrics if m.name in _HISTOGRAMS]
    config: Json = {
        "@type": _LOGGER,
        "stats_scope": {
            "prefix": "istio",
            "max_counters": MOST_SERIES * max(len(counters), 1),
            "max_histograms": MOST_SERIES * max(len(histograms), 1),
            "enable_eviction": True,
        },
    }
    if counters:
        config["counters"] = counters
    if histograms:
        config["histograms"] = histograms
    return [{"name": "envoy.access_loggers.stats", **top, "typed_config": config}]


def _histogram(metric: Metric, reporter: Reporter) -> Json:
    unit, value = _HISTOGRAMS[metric.name]
    return {"stat": _stat(metric, reporter), "unit": unit, "value_format": value}


def _stat(metric: Metric, reporter: Reporter) -> Json:
    added = dict(metric.added)
    gone = added.keys() | (set(metric.removed) - {GRPC_STATUS})  # the agent tells gRPC by it
    fields = [each for each in _fields(metric, reporter) if each[0] not in gone]
    fields += [(name, f"%CEL({expression})%") for name, expression in metric.added]
    tag = {"name": TAG, "value_format": packed(fields, metric.removed)}
    return {"name": metric.name.value, "tags": [tag]}


def _fields(metric: Metric, reporter: Reporter) -> list[tuple[str, str]]:
    """The standard labels. On the way out the peer is known by its endpoint, on the way in by what its sidecar says."""
    if reporter is Reporter.SOURCE:
        fields = [
            (REPORTER, "source"),
            ("destination", f"%UPSTREAM_METADATA({METADATA}:workload)%"),
            ("source_principal", "%UPSTREAM_LOCAL_URI_SAN%"),
            ("destination_principal", "%UPSTREAM_PEER_URI_SAN%"),
            ("connection_security_policy", "unknown"),
        ]
    else:
        mutual = reporter is Reporter.DESTINATION
        known = mutual and metric.name in _OF_HTTP
        fields = [
            (REPORTER, "destination"),
            ("source", f"%FILTER_STATE({PEER_STATE}:PLAIN)%" if known else ""),
            ("source_principal", "%DOWNSTREAM_PEER_URI_SAN%" if mutual else ""),
            ("destination_principal", "%DOWNSTREAM_LOCAL_URI_SAN%" if mutual else ""),
            ("connection_security_policy", "mutual_tls" if mutual else "none"),
        ]
    fields += [(SERVICE, f"%CLUSTER_METADATA({METADATA}:service)%"), ("response_flags", "%RESPONSE_FLAGS%")]
    if metric.name in _OF_HTTP:
        fields += [("response_code", "%RESPONSE_CODE%"), (GRPC_STATUS, "%GRPC_STATUS_NUMBER%")]
    else:
        fields.append(("request_protocol", "tcp"))
    return fields


REMEMBER_PEER: Json = {
    "on_request_headers": [
        {
            "object_key": PEER_STATE,
            "factory_key": "envoy.string",
            "format_string": {
                "text_format_source": {"inline_string": f"%REQ({PEER_HEADER}):300%"},
                "omit_empty_values": True,
            },
            "skip_if_empty": True,
        }
    ]
}
"""Configuration of the filter `set_filter_state`: the header is gone when the request is counted."""
