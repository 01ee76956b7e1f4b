"""From what proxies count to rates, quantiles and locks."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.istio_metrics import IstioMetrics
from cli.live.samples import BUCKETS, CONNECTIONS, REQUESTS, Series, failed, parse
from cli.live.traffic import Edge, Window, edges, increase, newest, quantile
from mesh.workloads import Workload
from tests.cli.live.synthetic import exposition

COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=8)


def series(metric: str = REQUESTS, reporter: str = "source", **more: Any) -> Series:
    return Series(metric, reporter, "n/a", "n/b", **{"policy": "unknown", **more})


def one(*windows: Window) -> Edge:
    (edge,) = edges(windows)
    return edge


def test_what_envoy_says_is_read_through_the_agents_own_rewriting() -> None:
    """The packed form of the real Envoy is in tests/agent and tests/discovery/envoy; here that both fit together."""
    packed = "\x1f".join(
        (
            "reporter=source",
            "destination=reviews-v1~n~reviews~v1~reviews~v1",
            "response_code=200",
            "grpc_response_status=",
        )
    )
    rewrite = IstioMetrics(Workload("productpage-v1", "n", "productpage", "v1")).rewriter()
    line = b'envoy_istio_requests_total{istio="%s"} 7\n' % packed.encode()
    assert parse((rewrite(line) + rewrite(b"")).decode()) == {
        Series(REQUESTS, "source", "n/productpage-v1", "n/reviews-v1", "unknown"): 7.0
    }


@pytest.mark.parametrize(
    "text",
    [
        "istio_requests_total 3",
        "istio_requests_total{reporter} 3",
        'istio_requests_total{reporter="source"} x',
        'istio_requests_total{reporter="source"} NaN',
        'istio_requests_total{reporter="source"} -1',
        'istio_requests_total{reporter="waypoint"} 1',
        'istio_requests_totally{reporter="source"} 1',
        'istio_request_duration_milliseconds_bucket{reporter="source",le="x"} 1',
        "# TYPE istio_requests_total counter",
        "",
    ],
)
def test_what_is_no_series_is_left_out(text: str) -> None:
    assert parse(text) == {}


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    assert isinstance(parse(f'istio_requests_total{{reporter="source",{text}}} 1\n{text}'), dict)


def test_ends_outside_the_mesh_have_names_of_their_own() -> None:
    found = parse(
        'istio_requests_total{reporter="source",source_workload="a",source_workload_namespace="n",'
        'destination_workload="unknown",destination_service_name="PassthroughCluster"} 1\n'
        'istio_requests_total{reporter="destination",destination_workload="a",destination_workload_namespace="n"} 1'
    )
    assert {(each.source, each.destination) for each in found} == {("n/a", "/PassthroughCluster"), ("/unknown", "n/a")}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"response_code": "200"}, False),
        ({"response_code": "404"}, False),
        ({"response_code": "503"}, True),
        ({"response_code": "0"}, True),
        ({"response_code": "200", "grpc_response_status": "5"}, False),
        ({"response_code": "200", "grpc_response_status": "14"}, True),
        ({}, False),
    ],
)
def test_an_error_is_the_servers(labels: dict[str, str], expected: bool) -> None:
    assert failed(labels) is expected


def test_rates_errors_and_quantiles_of_one_window() -> None:
    before = parse(exposition("a", "b", "source", 100))
    after = parse(exposition("a", "b", "source", 300) + exposition("a", "b", "source", 50, code="503"))
    edge = one(Window([(10.0, before), (20.0, after)]))
    assert edge.requests == pytest.approx(25.0)
    assert edge.errors == pytest.approx(0.2)
    assert edge.p50 == pytest.approx(5.0)
    assert edge.p99 == pytest.approx(5 + 20 * 0.98)
    assert edge.lock == "unknown"


def test_the_source_counts_and_the_destination_knows_of_the_lock() -> None:
    source = [parse(exposition("a", "b", "source", n)) for n in (0, 10)]
    destination = [parse(exposition("a", "b", "destination", n, policy="mutual_tls")) for n in (0, 4)]
    edge = one(Window([(0.0, source[0]), (1.0, source[1])]), Window([(5.0, destination[0]), (6.0, destination[1])]))
    assert (edge.requests, edge.lock) == (10.0, "mutual")


def test_two_pods_of_a_workload_are_added() -> None:
    sample = [parse(exposition("a", "b", "source", n)) for n in (0, 10)]
    window = Window([(0.0, sample[0]), (2.0, sample[1])])
    assert one(window, window).requests == pytest.approx(10.0)


def test_one_sample_is_an_edge_without_a_rate() -> None:
    edge = one(Window([(0.0, parse(exposition("a", "b", "destination", 5, policy="none")))]))
    assert (edge.requests, edge.p50, edge.lock) == (None, None, "plain")


def test_without_traffic_an_edge_stays_and_keeps_its_lock() -> None:
    sample = parse(exposition("a", "b", "destination", 5, policy="mutual_tls"))
    edge = one(Window([(0.0, sample), (1.0, sample)]))
    assert (edge.requests, edge.errors, edge.p99, edge.lock) == (0.0, None, None, "mutual")


def test_a_lock_that_only_some_connections_have_is_said() -> None:
    def both(n: int) -> str:
        return "".join(exposition("a", "b", "destination", n, policy=policy) for policy in ("none", "mutual_tls"))

    edge = one(Window([(0.0, parse(both(0))), (1.0, parse(both(3)))]))
    assert edge.lock == "mixed"


def test_connections_of_tcp_have_a_rate_too() -> None:
    opened = series(CONNECTIONS)
    edge = one(Window([(0.0, {opened: 1.0}), (2.0, {opened: 5.0})]))
    assert (edge.connections, edge.requests, edge.p50) == (2.0, 0.0, None)


@given(COUNTS)
def test_a_counter_that_only_grows_has_grown_by_its_difference(steps: list[int]) -> None:
    values = [float(sum(steps[:n])) for n in range(len(steps) + 1)]
    grown = increase([{series(): value} for value in values])
    assert grown[series()] == values[-1] - values[0]


@given(COUNTS, COUNTS)
def test_a_restart_loses_nothing_that_was_seen(first: list[int], second: list[int]) -> None:
    """What is counted after it is all new, unless it has already passed what was counted before."""
    runs = [[float(sum(steps[: n + 1])) for n in range(len(steps))] for steps in (first, second)]
    grown = increase([{series(): value} for value in [*runs[0], *runs[1]]])[series()]
    began_again = runs[1][0] < runs[0][-1]
    assert grown == runs[0][-1] - runs[0][0] + runs[1][-1] - (0.0 if began_again else runs[0][-1])
    assert grown >= 0


@given(st.lists(st.integers(0, 60), unique=True).map(sorted), st.integers(1, 20))
def test_a_window_has_the_last_two_and_what_is_near(moments: list[int], seconds: int) -> None:
    samples = [(float(moment), {series(): float(moment)}) for moment in moments]
    kept = newest(samples, seconds)
    assert kept == samples[len(samples) - len(kept) :]
    assert len(kept) >= min(2, len(samples))
    assert len(kept) <= 2 or kept[-1][0] - kept[0][0] <= seconds
    left = samples[: len(samples) - len(kept)]
    assert not left or samples[-1][0] - left[-1][0] > seconds


def test_quantiles_as_prometheus_computes_them() -> None:
    buckets = {1.0: 0.0, 5.0: 5.0, 25.0: 10.0, math.inf: 10.0}
    assert quantile(buckets, 0.5) == pytest.approx(5.0)
    assert quantile(buckets, 0.75) == pytest.approx(15.0)
    assert quantile({1.0: 0.0, math.inf: 4.0}, 0.5) == 1.0
    assert quantile({math.inf: 4.0}, 0.5) == 0.0
    assert quantile({1.0: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({1.0: 3.0}, 0.5) is None
    assert quantile({}, 0.5) is None


@given(
    st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=6, unique=True),
    st.lists(st.floats(0, 1e6), min_size=7, max_size=7),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_higher_quantile_is_no_smaller_and_within_the_bounds(
    bounds: list[float], counts: list[float], one: float, other: float
) -> None:
    """Also of buckets that were read while they grew, and so are not in order."""
    buckets = dict(zip([*sorted(bounds), math.inf], counts, strict=False))
    low, high = quantile(buckets, min(one, other)), quantile(buckets, max(one, other))
    if low is None or high is None:
        assert buckets.get(math.inf, 0.0) <= 0
        return
    assert 0 <= low <= high * (1 + 1e-9) + 1e-9
    assert high <= max(bounds) * (1 + 1e-9)


def test_edges_are_in_order_and_buckets_of_both_reports_are_not_mixed() -> None:
    text = (
        exposition("b", "c", "source", 4) + exposition("a", "b", "source", 4) + exposition("a", "b", "destination", 9)
    )
    found = edges([Window([(0.0, {}), (1.0, parse(text))])])
    assert [(each.source, each.destination, each.requests) for each in found] == [
        ("shop/a", "shop/b", 4.0),
        ("shop/b", "shop/c", 4.0),
    ]
    assert not any(each.policy or each.failed for each in parse(text) if each.metric == BUCKETS)
