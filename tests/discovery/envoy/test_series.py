"""How many series of Istio's metrics a real Envoy keeps, what is seen of those beyond, and how it forgets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from discovery.envoy.metrics import MOST_SERIES
from discovery.envoy.render import render
from mesh.istio.telemetry_rules import MOST_VALUES
from tests.support import envoy, http, plans
from tests.support.echo import EchoApp
from tests.support.ports import free_port
from tests.support.waiting import wait_for

BEYOND = 50
METRICS = [
    {"name": "requests_total", "added": [["path", "request.url_path"]]},
    {"name": "request_bytes", "added": [["path", "request.url_path"]]},
]


@contextmanager
def counting(directory: Path, **bootstrap: Any) -> Iterator[tuple[envoy.RunningEnvoy, int]]:
    """An Envoy that counts requests by their path, and its port."""
    port = free_port()
    route = {"name": "default", "match": {}, "targets": [{"destination": "app"}]}
    with EchoApp("app") as app:
        fields = {
            "reporting": {"client_metrics": METRICS},
            "outbound": [{"name": "web", "address": "0.0.0.0", "port": 80, "protocol": "http", "route_table": "web"}],
            "route_tables": [
                {"name": "web", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            ],
            "destinations": [
                {"name": "app", "resolution": "local", "protocol": "http", "address": "127.0.0.1", "port": app.port}
            ],
        }
        made = envoy.static_bootstrap(render(plans.plan(fields)), (), free_port()) | bootstrap
        with envoy.RunningEnvoy(envoy.bind_listeners(made, {"web": [port]}), directory) as running:
            yield running, port


def paths(running: envoy.RunningEnvoy, metric: str) -> set[str]:
    """The values of the label by which there are series of `metric`."""
    found = re.findall(rf"^envoy_istio_{metric}.*path=(/p\d+)", running.admin("/stats/prometheus"), re.MULTILINE)
    return set(found)


def overflow(running: envoy.RunningEnvoy, kind: str) -> int:
    """How often Envoy did not count because of the bound; nothing is said of it before the first time."""
    text = running.admin("/stats/prometheus")
    found = re.search(rf"^envoy_server_stats_overflow_{kind}{{}} (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _count(running: envoy.RunningEnvoy, path: str) -> int:
    text = running.admin("/stats/prometheus")
    found = re.search(rf"^envoy_istio_requests_total.*path={path}\D.* (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def ask(port: int, first: int, count: int) -> None:
    for number in range(first, first + count):
        assert http.get(port, f"/p{number}").status == 200


def test_a_label_of_many_values_ends_at_the_bound_and_is_seen_to(tmp_path: Path) -> None:
    """An expression for which `MOST_VALUES` were assumed, and that has more."""
    with counting(tmp_path) as (running, port):
        ask(port, 0, MOST_SERIES)
        wait_for(lambda: len(paths(running, "requests_total")) == MOST_SERIES)
        assert overflow(running, "counter") == 0
        ask(port, MOST_SERIES, BEYOND)
        wait_for(lambda: overflow(running, "counter") == BEYOND)
        wait_for(lambda: overflow(running, "histogram") == BEYOND)
        for metric in ("requests_total", "request_bytes_count"):
            assert paths(running, metric) == {f"/p{number}" for number in range(MOST_SERIES)}
        ask(port, 0, 1)  # those that are there go on
        wait_for(lambda: _count(running, "/p0") == 2)
    assert MOST_VALUES == MOST_SERIES


def test_series_that_nobody_asks_for_any_more_make_room(tmp_path: Path) -> None:
    soon = {"stats_flush_interval": "0.5s", "stats_eviction_interval": "1s"}
    with counting(tmp_path, **soon) as (running, port):

        def after(first: int, count: int) -> set[str]:
            ask(port, first, count)
            return paths(running, "requests_total")

        wait_for(lambda: len(after(0, 50)) > 1)
        wait_for(lambda: after(1000, 1) == {"/p1000"})  # it is used, and the others are not
        assert overflow(running, "counter") == 0
