"""What a proxy has counted so far, read from its exposition (Prometheus' text format). Pure.

Istio's standard metrics, by https://istio.io/latest/docs/reference/config/metrics/. Series that differ only in labels
that nobody looks at here become one, their sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

REQUESTS, CONNECTIONS, BUCKETS = (
    "istio_requests_total",
    "istio_tcp_connections_opened_total",
    "istio_request_duration_milliseconds_bucket",
)
SOURCE, DESTINATION = "source", "destination"
MUTUAL_TLS, PLAIN = "mutual_tls", "none"
UNKNOWN = "unknown"

SERVER_FAULTS = frozenset({"2", "4", "12", "13", "14", "15"})
"""Of gRPC's status codes those that are the server's fault: OpenTelemetry, "Semantic conventions for gRPC"."""

_LINE = re.compile(r"(\w+)\{(.*)\} (\S+)(?: -?\d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


class Series(NamedTuple):
    """One number that only grows. `source` and `destination` are `namespace/workload`; `policy` is what the reporter
    knows of the connection's protection; `bound` is that of a bucket in milliseconds, infinite for the last."""

    metric: str
    reporter: str
    source: str
    destination: str
    policy: str = ""
    failed: bool = False
    bound: float = 0.0


Sample = Mapping[Series, float]


def parse(text: str) -> Sample:
    """The series of `text` that are known here. What is no line of the format is left out."""
    found: dict[Series, float] = {}
    for line in text.split("\n"):
        if not line.startswith((REQUESTS, CONNECTIONS, BUCKETS)):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in (REQUESTS, CONNECTIONS, BUCKETS):
            continue
        try:
            value = float(match[3])
            series = _series(match[1], {name: _plain(value) for name, value in _LABEL.findall(match[2])})
        except ValueError:
            continue
        if series is not None and math.isfinite(value) and value >= 0:
            found[series] = found.get(series, 0.0) + value
    return found


def _series(metric: str, labels: Mapping[str, str]) -> Series | None:
    reporter = labels.get("reporter", "")
    if reporter not in (SOURCE, DESTINATION):
        return None
    bound = float(labels["le"]) if metric == BUCKETS and "le" in labels else 0.0
    if math.isnan(bound):
        return None
    # A caller is told of quantiles of all requests, so that buckets do without what else there is to know of them.
    whole = metric != BUCKETS
    return Series(
        metric,
        reporter,
        _end(labels, "source"),
        _end(labels, "destination"),
        labels.get("connection_security_policy", UNKNOWN) if whole else "",
        whole and metric == REQUESTS and failed(labels),
        bound,
    )


def _end(labels: Mapping[str, str], side: str) -> str:
    """A workload as `namespace/name`; of a destination outside the mesh the service's name, as `/name`."""
    name, namespace = labels.get(f"{side}_workload", UNKNOWN), labels.get(f"{side}_workload_namespace", UNKNOWN)
    if name not in ("", UNKNOWN):
        return f"{namespace}/{name}"
    service = labels.get("destination_service_name", "") if side == "destination" else ""
    return f"/{service or UNKNOWN}"


def failed(labels: Mapping[str, str]) -> bool:
    """Whether the server failed: 5xx, no answer at all (0), or a status of gRPC's that is its fault."""
    code = labels.get("response_code", "")
    return code == "0" or (len(code) == 3 and code[0] == "5") or labels.get("grpc_response_status") in SERVER_FAULTS


def _plain(value: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
