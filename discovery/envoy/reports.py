"""What listeners report of requests and connections: the fields of a connection manager or TCP proxy for it."""

from __future__ import annotations

from discovery.envoy.access_log import CONNECTION_END, file_log, refused
from discovery.envoy.context import Context
from discovery.envoy.metrics import Reporter, http_metrics, tcp_metrics
from discovery.envoy.tracing import tracing
from discovery.envoy.values import Json
from discovery.plan.reporting import AccessLog, Metric


def http_reports(context: Context, reporter: Reporter) -> Json:
    """Of a connection manager."""
    logs = [file_log(each) for each in _logs(context, reporter)]
    reporting = context.reporting
    traces = reporting.client_tracing if reporter is Reporter.SOURCE else reporting.server_tracing
    return {**_field([*logs, *http_metrics(_metrics(context, reporter), reporter)]), **tracing(traces)}


def tcp_reports(context: Context, reporter: Reporter) -> Json:
    """Of a TCP proxy. Where metrics count how connections begin, that is logged too: the file is for their end."""
    metrics = tcp_metrics(_metrics(context, reporter), reporter)
    if not metrics:
        return unmeasured(context, reporter)
    logs = [file_log(each, CONNECTION_END) for each in _logs(context, reporter)]
    return {**_field([*logs, *metrics]), "access_log_options": {"flush_access_log_on_connected": True}}


def unmeasured(context: Context, reporter: Reporter) -> Json:
    """Of connections that go nowhere: logged, not counted."""
    return _field([file_log(each) for each in _logs(context, reporter)])


def refused_log(context: Context, reporter: Reporter) -> Json:
    """Of a listener: only connections that no filter chain takes (plain text under STRICT)."""
    return _field([refused(each) for each in _logs(context, reporter)])


def _field(loggers: list[Json]) -> Json:
    return {"access_log": loggers} if loggers else {}


def _metrics(context: Context, reporter: Reporter) -> tuple[Metric, ...]:
    reporting = context.reporting
    return reporting.client_metrics if reporter is Reporter.SOURCE else reporting.server_metrics


def _logs(context: Context, reporter: Reporter) -> tuple[AccessLog, ...]:
    reporting = context.reporting
    return reporting.client_logs if reporter is Reporter.SOURCE else reporting.server_logs
