"""What is reported of requests and connections, as a plan says it: metrics, access logs, traces."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from discovery.plan.origins import Origin


class MetricName(StrEnum):
    """Istio's metrics, without `istio_`."""

    REQUESTS = "requests_total"
    DURATION = "request_duration_milliseconds"
    REQUEST_BYTES = "request_bytes"
    RESPONSE_BYTES = "response_bytes"
    OPENED = "tcp_connections_opened_total"
    CLOSED = "tcp_connections_closed_total"
    SENT = "tcp_sent_bytes_total"
    RECEIVED = "tcp_received_bytes_total"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as one side of requests reports it. `added`: labels with the CEL expressions of their values, which win
    over the standard ones. `removed`: names of labels that it goes without. Both by name."""

    name: MetricName
    added: tuple[tuple[str, str], ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessLog:
    """A line for each request and connection in the file `path`: in the format `text` (Istio's when empty), or as JSON
    of `fields`. `expression`: CEL, which holds for what is logged."""

    path: str
    text: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    expression: str = ""


class Tracer(StrEnum):
    """What a collector speaks. OpenTelemetry passes traces on by W3C's headers, Zipkin by B3's and, `w3c`, by W3C's."""

    OPENTELEMETRY = "opentelemetry"
    OPENTELEMETRY_HTTP = "opentelemetry-http"
    ZIPKIN = "zipkin"


class TagSource(StrEnum):
    LITERAL = "literal"
    ENVIRONMENT = "environment"
    HEADER = "header"
    FORMAT = "format"


@dataclass(frozen=True, slots=True)
class TraceTag:
    """`value`: the text itself, the name of the variable or header, or Envoy's format."""

    name: str
    source: TagSource
    value: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans go to the destination of that name, `host` for short. `sampling`: percentage of the requests whose caller
    has not decided. `reported` False: none are sent, and the caller's context is passed on. `passed_on` False: spans
    are sent, and who is asked hears of no trace. `by_request_id`: all proxies of a request decide alike by its id."""

    kind: Tracer
    destination: str
    host: str
    path: str = ""
    sampling: float = 1.0
    reported: bool = True
    tags: tuple[TraceTag, ...] = ()
    max_tag_length: int = 256
    w3c: bool = True
    long_ids: bool = True
    passed_on: bool = True
    by_request_id: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Reporting:
    """What a proxy reports of what it sends (`client`) and of what it takes in (`server`).

    The same object for all proxies that report the same: it compares by identity, since it is part of many keys.
    """

    client_metrics: tuple[Metric, ...] = ()
    server_metrics: tuple[Metric, ...] = ()
    client_logs: tuple[AccessLog, ...] = ()
    server_logs: tuple[AccessLog, ...] = ()
    client_tracing: Tracing | None = None
    server_tracing: Tracing | None = None
    origins: tuple[Origin, ...] = ()


NOTHING = Reporting()
