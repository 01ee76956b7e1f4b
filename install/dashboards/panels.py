"""What a dashboard is made of, and the PromQL that is asked again and again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

INTERVAL = "$__rate_interval"
"""Grafana's word for a window that always holds several scrapes."""


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called: `{{label}}` stands for a label."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit` is Grafana's. `kind`: `timeseries`, `stat` (one number), or `table`, with a column for each query."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    about: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """What the reader chooses; any number, all at first."""

    name: str
    values: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`rows`: their titles and panels."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[Variable, ...] = ()


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """How much of a counter comes each second."""
    chosen = f"{metric}{{{labels}}}" if labels else metric
    return f"sum{f' by ({by}) ' if by else ''}(rate({chosen}[{INTERVAL}]))"


def quantile(share: float, histogram: str, labels: str = "", by: str = "") -> str:
    """Below which value so large a share lies, of what came lately."""
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', labels, f'le, {by}' if by else 'le')})"


def quantiles(
    histogram: str, labels: str = "", by: str = "", shares: tuple[float, ...] = (0.5, 0.9, 0.99)
) -> tuple[Query, ...]:
    """Some quantiles of one histogram, each called by its share and the labels."""
    names = " ".join(f"{{{{{name}}}}}" for name in by.split(", ") if name)
    return tuple(Query(quantile(share, histogram, labels, by), f"{names} p{share * 100:g}".strip()) for share in shares)


def succeeded(labels: str, by: str = "") -> str:
    """The share of requests whose answer is no server's error."""
    good = rate("istio_requests_total", f'{labels},response_code!~"5.."', by)
    return f"{good} / {rate('istio_requests_total', labels, by)}"


def or_zero(expr: str) -> str:
    """Counters with labels that are not known beforehand are not there until something was counted."""
    return f"{expr} or on () vector(0)"


LEFT = "heddle_agent_certificate_expiry_timestamp_seconds"
