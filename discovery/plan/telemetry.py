"""What a proxy reports: metrics."""

from __future__ import annotations

from discovery.plan.model import Metric, MetricName, Reporting

STANDARD = tuple(Metric(name) for name in MetricName)
EVERYTHING = Reporting(client_metrics=STANDARD, server_metrics=STANDARD)
