"""What flows: the whole mesh, one service, one workload. By the metrics of proxies (docs/telemetry.md)."""

from __future__ import annotations

from install.dashboards.panels import (
    LEFT,
    Dashboard,
    Panel,
    Query,
    Variable,
    or_zero,
    quantile,
    quantiles,
    rate,
    succeeded,
)

SERVER, CLIENT = 'reporter="destination"', 'reporter="source"'
DURATION = "istio_request_duration_milliseconds"
OPENED = "istio_tcp_connections_opened_total"
SENT, RECEIVED = "istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"
WORKLOAD = "destination_workload_namespace, destination_workload"
_AT_ITS_END = "The bytes of a connection count when it ends."


def _tcp(labels: str, by: str, legend: str) -> tuple[Panel, ...]:
    return (
        Panel("TCP connections opened", "cps", (Query(rate(OPENED, labels, by), legend),)),
        Panel("TCP bytes sent", "Bps", (Query(rate(SENT, labels, by), legend),), about=_AT_ITS_END),
        Panel("TCP bytes received", "Bps", (Query(rate(RECEIVED, labels, by), legend),), about=_AT_ITS_END),
    )


MESH = Dashboard(
    "mesh",
    "Mesh",
    (
        (
            "Now",
            (
                Panel("Requests", "reqps", (Query(rate("istio_requests_total", SERVER)),), "stat", 4),
                Panel("Without a server's error", "percentunit", (Query(succeeded(CLIENT)),), "stat", 4),
                Panel("p99", "ms", (Query(quantile(0.99, DURATION, SERVER)),), "stat", 4),
                Panel(
                    "By mutual TLS",
                    "percentunit",
                    (
                        Query(
                            rate("istio_requests_total", f'{SERVER},connection_security_policy="mutual_tls"')
                            + " / "
                            + rate("istio_requests_total", SERVER)
                        ),
                    ),
                    "stat",
                    4,
                ),
                Panel("Proxies", "none", (Query("sum(pilot_xds)"),), "stat", 4),
                Panel("Certificate that ends first", "s", (Query(f"min({LEFT} > 0) - time()"),), "stat", 4),
            ),
        ),
        (
            "Workloads",
            (
                Panel(
                    "Requests, by who answers",
                    "none",
                    (
                        Query(rate("istio_requests_total", SERVER, WORKLOAD), "requests a second"),
                        Query(succeeded(CLIENT, WORKLOAD), "without a server's error"),
                        Query(quantile(0.5, DURATION, SERVER, WORKLOAD), "p50 (ms)"),
                        Query(quantile(0.99, DURATION, SERVER, WORKLOAD), "p99 (ms)"),
                    ),
                    "table",
                    14,
                ),
                Panel(
                    "TCP, by who answers",
                    "none",
                    (
                        Query(rate(OPENED, SERVER, WORKLOAD), "connections a second"),
                        Query(rate(SENT, SERVER, WORKLOAD), "bytes sent a second"),
                        Query(rate(RECEIVED, SERVER, WORKLOAD), "bytes received a second"),
                    ),
                    "table",
                    10,
                    _AT_ITS_END,
                ),
            ),
        ),
        (
            "Services",
            (
                Panel(
                    "Requests",
                    "reqps",
                    (Query(rate("istio_requests_total", SERVER, "destination_service"), "{{destination_service}}"),),
                ),
                Panel(
                    "Server errors",
                    "reqps",
                    (
                        Query(
                            or_zero(
                                rate(
                                    "istio_requests_total",
                                    f'{CLIENT},response_code=~"5.."',
                                    "destination_service, response_code, response_flags",
                                )
                            ),
                            "{{destination_service}} {{response_code}} {{response_flags}}",
                        ),
                    ),
                    about="As their clients saw them, so that those count too that no server has answered.",
                ),
                Panel("Latency", "ms", quantiles(DURATION, SERVER, "destination_service", (0.99,))),
                Panel(
                    "Security of connections",
                    "reqps",
                    (
                        Query(
                            rate("istio_requests_total", SERVER, "connection_security_policy"),
                            "{{connection_security_policy}}",
                        ),
                    ),
                ),
                Panel(
                    "TCP bytes",
                    "Bps",
                    (
                        Query(rate(SENT, SERVER, "destination_service"), "{{destination_service}} sent"),
                        Query(rate(RECEIVED, SERVER, "destination_service"), "{{destination_service}} received"),
                    ),
                    about=_AT_ITS_END,
                ),
            ),
        ),
    ),
)

_OF_SERVICE = 'destination_service=~"$service"'
_SERVED, _ASKED = f"{SERVER},{_OF_SERVICE}", f"{CLIENT},{_OF_SERVICE}"

SERVICE = Dashboard(
    "service",
    "Service",
    (
        (
            "As its clients see it",
            (
                Panel(
                    "Requests, by who asks and answer",
                    "reqps",
                    (
                        Query(
                            rate("istio_requests_total", _ASKED, "source_workload, response_code, response_flags"),
                            "{{source_workload}} {{response_code}} {{response_flags}}",
                        ),
                    ),
                ),
                Panel(
                    "Without a server's error",
                    "percentunit",
                    (Query(succeeded(_ASKED, "source_workload"), "{{source_workload}}"),),
                ),
                Panel("Latency", "ms", quantiles(DURATION, _ASKED)),
            ),
        ),
        (
            "As it sees itself",
            (
                Panel(
                    "Requests, by workload and answer",
                    "reqps",
                    (
                        Query(
                            rate("istio_requests_total", _SERVED, "destination_workload, response_code"),
                            "{{destination_workload}} {{response_code}}",
                        ),
                    ),
                ),
                Panel("Latency, by workload", "ms", quantiles(DURATION, _SERVED, "destination_workload", (0.5, 0.99))),
                Panel(
                    "Security of connections",
                    "reqps",
                    (
                        Query(
                            rate("istio_requests_total", _SERVED, "connection_security_policy, source_principal"),
                            "{{connection_security_policy}} {{source_principal}}",
                        ),
                    ),
                ),
                Panel("Size of requests", "bytes", quantiles("istio_request_bytes", _SERVED), width=12),
                Panel("Size of answers", "bytes", quantiles("istio_response_bytes", _SERVED), width=12),
            ),
        ),
        ("TCP", _tcp(_SERVED, "destination_workload", "{{destination_workload}}")),
    ),
    (Variable("service", "label_values(istio_requests_total, destination_service)"),),
)

_IN = f'{SERVER},destination_workload_namespace=~"$namespace",destination_workload=~"$workload"'
_OUT = f'{CLIENT},source_workload_namespace=~"$namespace",source_workload=~"$workload"'
_PODS = 'namespace=~"$namespace",pod=~"($workload)-.*"'

WORKLOADS = Dashboard(
    "workload",
    "Workload",
    (
        (
            "What it is asked",
            (
                Panel(
                    "Requests, by who asks and answer",
                    "reqps",
                    (
                        Query(
                            rate("istio_requests_total", _IN, "source_workload, response_code"),
                            "{{source_workload}} {{response_code}}",
                        ),
                    ),
                ),
                Panel("Latency", "ms", quantiles(DURATION, _IN)),
                Panel(
                    "Size of requests and answers, p99",
                    "bytes",
                    (
                        Query(quantile(0.99, "istio_request_bytes", _IN), "requests"),
                        Query(quantile(0.99, "istio_response_bytes", _IN), "answers"),
                    ),
                ),
            ),
        ),
        (
            "What it asks",
            (
                Panel(
                    "Requests, by service and answer",
                    "reqps",
                    (
                        Query(
                            rate("istio_requests_total", _OUT, "destination_service, response_code, response_flags"),
                            "{{destination_service}} {{response_code}} {{response_flags}}",
                        ),
                    ),
                ),
                Panel(
                    "Without a server's error, by service",
                    "percentunit",
                    (Query(succeeded(_OUT, "destination_service"), "{{destination_service}}"),),
                ),
                Panel("Latency, by service", "ms", quantiles(DURATION, _OUT, "destination_service", (0.5, 0.99))),
            ),
        ),
        ("TCP that it takes in", _tcp(_IN, "destination_service", "{{destination_service}}")),
        ("TCP that it opens", _tcp(_OUT, "destination_service", "{{destination_service}}")),
        (
            "Its proxies",
            (
                Panel(
                    "Certificate ends in",
                    "s",
                    (Query(f"({LEFT}{{{_PODS}}} > 0) - time()", "{{pod}}"),),
                ),
                Panel(
                    "Configuration that Envoy refuses",
                    "none",
                    (Query(f"heddle_agent_rejected_resources{{{_PODS}}}", "{{pod}}"),),
                ),
                Panel(
                    "Connected with discovery",
                    "bool_yes_no",
                    (Query(f"heddle_agent_discovery_connected{{{_PODS}}}", "{{pod}}"),),
                ),
            ),
        ),
    ),
    (
        Variable("namespace", "label_values(istio_requests_total, destination_workload_namespace)"),
        Variable(
            "workload",
            'label_values(istio_requests_total{destination_workload_namespace=~"$namespace"}, destination_workload)',
        ),
    ),
)
