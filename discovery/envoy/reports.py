"""What listeners report of requests and connections: the fields of a connection manager or TCP proxy for it."""

from __future__ import annotations

from discovery.envoy.access_log import file_log
from discovery.envoy.context import Context
from discovery.envoy.metrics import CONNECTION_END, Reporter, http_metrics, tcp_metrics
from discovery.envoy.values import Json
from discovery.plan.model import Metric


def http_reports(context: Context, reporter: Reporter) -> Json:
    """Of a connection manager."""
    loggers = [*file_log(context.access_log), *http_metrics(_metrics(context, reporter), reporter)]
    return {"access_log": loggers} if loggers else {}


def tcp_reports(context: Context, reporter: Reporter) -> Json:
    """Of a TCP proxy. Where metrics count how connections begin, that is logged too: the file is for their end."""
    metrics = tcp_metrics(_metrics(context, reporter), reporter)
    if not metrics:
        return unmeasured(context)
    logs = [{**each, "filter": CONNECTION_END} for each in file_log(context.access_log)]
    return {"access_log": [*logs, *metrics], "access_log_options": {"flush_access_log_on_connected": True}}


def unmeasured(context: Context) -> Json:
    """Of connections that go nowhere: logged, not counted."""
    logs = file_log(context.access_log)
    return {"access_log": logs} if logs else {}


def _metrics(context: Context, reporter: Reporter) -> tuple[Metric, ...]:
    reporting = context.reporting
    return reporting.client_metrics if reporter is Reporter.SOURCE else reporting.server_metrics
