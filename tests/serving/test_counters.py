"""Counters without `_total`, as Prometheus reads them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.counters import PlainCounter, exposition


def test_they_go_out_as_counters_of_their_own_name_among_others() -> None:
    registry = CollectorRegistry()
    plain = PlainCounter("pushes", "Answers", ("type",), registry=registry, known=[("cds",), ("eds",)])
    PlainCounter("csr_count", "Requests", registry=registry).inc()
    Counter("injections", "Pods", registry=registry).inc()
    Gauge("untyped", "Not untyped", registry=registry)
    for kind in ("eds", "eds", "rds"):
        plain.inc(kind)
    lines = [line for line in exposition(registry).decode().splitlines() if "_created" not in line]
    assert lines == [
        "# HELP pushes Answers",
        "# TYPE pushes counter",
        'pushes{type="cds"} 0.0',
        'pushes{type="eds"} 2.0',
        'pushes{type="rds"} 1.0',
        "# HELP csr_count Requests",
        "# TYPE csr_count counter",
        "csr_count 1.0",
        "# HELP injections_total Pods",
        "# TYPE injections_total counter",
        "injections_total 1.0",
        "# HELP untyped Not untyped",
        "# TYPE untyped gauge",
        "untyped 0.0",
    ]


def test_a_value_for_each_label() -> None:
    counter = PlainCounter("pushes", "Answers", ("type", "event"), registry=CollectorRegistry())
    with pytest.raises(ValueError, match="has the labels"):
        counter.inc("cds")
