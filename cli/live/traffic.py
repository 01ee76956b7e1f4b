"""From what proxies have counted to what flows between workloads. Pure.

Rates and quantiles are Prometheus' (`rate`, `histogram_quantile`: https://prometheus.io/docs/prometheus/latest/querying/functions/).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.live.samples import BUCKETS, CONNECTIONS, DESTINATION, MUTUAL_TLS, PLAIN, REQUESTS, SOURCE, Sample, Series

ENCRYPTED, CLEAR, MIXED, NOT_KNOWN = "mutual", "plain", "mixed", "unknown"


@dataclass(frozen=True, slots=True)
class Window:
    """What one proxy had counted at some moments (seconds of any one clock), the oldest first."""

    samples: Sequence[tuple[float, Sample]]

    @property
    def seconds(self) -> float:
        """Between the first and the last; 0 for fewer than two."""
        return self.samples[-1][0] - self.samples[0][0] if self.samples else 0.0


@dataclass(frozen=True, slots=True)
class Edge:
    """What goes from `source` to `destination` (`namespace/workload`; `/name` for what is in no mesh).

    Requests and connections a second, None while nothing is known but a total; `errors` is their part of the requests,
    from 0 to 1; milliseconds for `p50` and `p99`, None without requests. `lock` says how connections were protected:
    mutual, plain, mixed, or unknown where the destination's proxy does not tell.
    """

    source: str
    destination: str
    requests: float | None
    errors: float | None
    connections: float | None
    p50: float | None
    p99: float | None
    lock: str

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "destination": self.destination,
            "requestsPerSecond": _rounded(self.requests),
            "errors": _rounded(self.errors),
            "connectionsPerSecond": _rounded(self.connections),
            "p50Milliseconds": _rounded(self.p50),
            "p99Milliseconds": _rounded(self.p99),
            "lock": self.lock,
        }


def newest(samples: Sequence[tuple[float, Sample]], seconds: float) -> Sequence[tuple[float, Sample]]:
    """The last ones, no more than `seconds` apart, and two where there are two."""
    begin = samples[-1][0] - seconds if samples else 0.0
    return [each for each in samples[:-2] if each[0] >= begin] + list(samples[-2:])


def edges(windows: Iterable[Window]) -> list[Edge]:
    """Of all that was ever counted, sorted, with what the windows show of each.

    Both ends count the same requests. The source's numbers are taken where there are any: they have in them what never
    arrived. How a connection was protected only the destination's proxy knows.
    """
    totals: dict[Series, float] = {}
    rates: dict[Series, float] = {}
    for window in windows:
        if not window.samples:
            continue
        _add(totals, window.samples[-1][1], 1.0)
        if window.seconds > 0:
            _add(rates, increase([sample for _, sample in window.samples]), 1.0 / window.seconds)
    by_edge: dict[tuple[str, str], list[Series]] = {}
    for series in totals:
        by_edge.setdefault((series.source, series.destination), []).append(series)
    return [_edge(ends, by_edge[ends], totals, rates) for ends in sorted(by_edge)]


def increase(samples: Sequence[Sample]) -> dict[Series, float]:
    """By how much each series has grown over the samples. One that became smaller began again at 0."""
    grown: dict[Series, float] = {}
    for before, after in itertools.pairwise(samples):
        for series, value in after.items():
            old = before.get(series, 0.0)
            grown[series] = grown.get(series, 0.0) + (value - old if value >= old else value)
    return grown


def quantile(buckets: Mapping[float, float], part: float) -> float | None:
    """Below which bound `part` of what is in cumulative `buckets` (by upper bound, one of them infinite) lies.

    Within a bucket linear; of the last bucket its lower bound. None for an empty histogram, or one without a last.
    """
    bounds = sorted(buckets)
    if not bounds or not math.isinf(bounds[-1]) or buckets[bounds[-1]] <= 0:
        return None
    rank = part * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        # Buckets are read one after the other while they grow: one may seem to have fewer than the one before.
        count = max(below, buckets[bound])
        if count >= rank and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * max(0.0, rank - below) / (count - below)
        lower, below = (lower if math.isinf(bound) else bound), count
    return lower


def _add(sums: dict[Series, float], sample: Sample, factor: float) -> None:
    for series, value in sample.items():
        sums[series] = sums.get(series, 0.0) + value * factor


def _edge(
    ends: tuple[str, str], series: Sequence[Series], totals: Mapping[Series, float], rates: Mapping[Series, float]
) -> Edge:
    reporter = SOURCE if any(each.reporter == SOURCE for each in series) else DESTINATION
    told = [each for each in series if each.reporter == reporter]
    known = any(each in rates for each in told)
    requests = sum(rates.get(each, 0.0) for each in told if each.metric == REQUESTS)
    failures = sum(rates.get(each, 0.0) for each in told if each.metric == REQUESTS and each.failed)
    connections = sum(rates.get(each, 0.0) for each in told if each.metric == CONNECTIONS)
    buckets: dict[float, float] = {}
    for each in told:
        if each.metric == BUCKETS:
            buckets[each.bound] = buckets.get(each.bound, 0.0) + rates.get(each, 0.0)
    return Edge(
        source=ends[0],
        destination=ends[1],
        requests=requests if known else None,
        errors=failures / requests if requests > 0 else None,
        connections=connections if known else None,
        p50=quantile(buckets, 0.5),
        p99=quantile(buckets, 0.99),
        lock=_lock([each for each in series if each.reporter == DESTINATION and each.metric != BUCKETS], totals, rates),
    )


def _lock(series: Sequence[Series], totals: Mapping[Series, float], rates: Mapping[Series, float]) -> str:
    """By what is seen now, or by all that was seen where nothing is."""
    now = {each.policy for each in series if rates.get(each, 0.0) > 0}
    policies = (now or {each.policy for each in series if totals[each] > 0}) & {MUTUAL_TLS, PLAIN}
    if len(policies) == 2:
        return MIXED
    return ENCRYPTED if MUTUAL_TLS in policies else CLEAR if PLAIN in policies else NOT_KNOWN


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
