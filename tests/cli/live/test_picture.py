"""Places, changes, and the whole picture with its lines for a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.live.changes import changes, remembered, taken
from cli.live.collector import Collector
from cli.live.layout import MOST_ROWS, places
from cli.live.screen import screen
from mesh.errors import Unavailable
from tests.cli.live.synthetic import Synthetic

NAMES = st.sampled_from("abcdefgh")
EDGES = st.lists(st.tuples(NAMES, NAMES), max_size=20)


def collector(source: Any, answer_seconds: float = 20.0) -> Collector:
    return Collector(source, answer_seconds=answer_seconds, clock=lambda: 1_767_225_600.0)


def test_callers_are_left_of_whom_they_call() -> None:
    found = places("gprdv", [("g", "p"), ("p", "r"), ("p", "d"), ("r", "v")])
    assert {name: place[0] for name, place in found.items()} == {"g": 0, "p": 1, "r": 2, "d": 2, "v": 3}


def test_who_calls_nobody_and_is_not_called_comes_last() -> None:
    assert places("abz", [("z", "b")])["a"] == (2, 0)


def test_a_large_layer_has_several_columns() -> None:
    names = [f"n{n:02}" for n in range(2 * MOST_ROWS + 1)]
    found = places(names, [])
    assert {place[0] for place in found.values()} == {0, 1, 2}
    assert max(row for _, row in found.values()) == MOST_ROWS - 1


@given(EDGES, st.randoms())
def test_every_name_has_one_place_in_whatever_order_they_come(edges: list[tuple[str, str]], random: Any) -> None:
    """Rings, edges to oneself, several of the same, and such to names that are not there."""
    names = list("abcdef")
    found = places(names, edges)
    assert sorted(found) == names
    assert len(set(found.values())) == len(names)
    random.shuffle(names)
    random.shuffle(edges)
    assert places(names, edges) == found


def proxy(pod: str, **since: str) -> dict[str, Any]:
    return {"namespace": "n", "pod": pod, "types": {kind: {"since": at} for kind, at in since.items()}}


def test_moments_close_together_are_one_change_and_earlier_ones_are_remembered() -> None:
    first = taken([proxy("a", routes="2026-01-01T00:00:00.100Z"), proxy("b", routes="2026-01-01T00:00:00.350Z")])
    second = taken([proxy("a", routes="2026-01-01T00:01:00Z", clusters="2026-01-01T00:00:00.2Z"), proxy("b")])
    newest, oldest = changes(first | second)
    assert (newest.proxies, newest.seconds, newest.types) == (1, 0.0, ("routes",))
    assert (oldest.proxies, round(oldest.seconds, 3), oldest.types) == (2, 0.25, ("clusters", "routes"))
    assert changes(taken([proxy("a", routes="soon", clusters="")])) == []


@given(st.sets(st.tuples(st.floats(0, 100), st.sampled_from(["n/a", "n/b"]), st.sampled_from(["routes", "secrets"]))))
def test_what_is_forgotten_is_not_shown(moments: set[tuple[float, str, str]]) -> None:
    assert changes(remembered(moments)) == changes(moments)


def test_a_whole_mesh() -> None:
    source = Synthetic(20)
    reader = collector(source)
    first, second = reader.refresh(), reader.refresh()
    assert [each["id"] for each in second["workloads"]] == sorted(each["id"] for each in second["workloads"])
    assert [each["place"] for each in first["workloads"]] == [each["place"] for each in second["workloads"]]
    assert len(second["workloads"]) == 20
    assert len(second["edges"]) == 32
    assert all(each["requestsPerSecond"] is None for each in first["edges"])
    assert all(each["requestsPerSecond"] > 0 and each["lock"] == "mutual" for each in second["edges"])
    assert [each["holder"] for each in second["certificates"]][:2] == ["shop/svc-019-0", "shop/svc-018-0"]
    assert second["rotation"]["phases"][2]["part"] == 0.5
    assert second["convergence"] == {"proxies": 20, "current": 20, "behind": []}
    assert (second["changes"][0]["proxies"], second["problems"]) == (20, [])
    assert json.loads(json.dumps(second)) == second


def test_who_does_not_answer_is_shown_and_the_rest_is_drawn() -> None:
    source = Synthetic(10)
    source.silent, source.stuck = {"svc-001"}, {"svc-002"}
    reader = collector(source, answer_seconds=0.3)
    reader.refresh()
    found = reader.refresh()
    silent = {each["name"]: each["pods"][0]["silent"] for each in found["workloads"] if each["pods"][0]["silent"]}
    assert set(silent) >= {"svc-001", "svc-002"}
    assert "no connection" in silent["svc-001"]
    assert "has not answered for" in silent["svc-002"]
    text = screen(found)
    assert "SILENT shop/svc-001-0: heddle-agent in shop/svc-001-0 failed: no connection" in text
    assert ("svc-000", "svc-003") in {(e["source"][5:], e["destination"][5:]) for e in found["edges"]}


@pytest.mark.parametrize("down", ["status", "certificates", "rotation", "proxies"])
def test_what_cannot_be_read_is_said_and_the_rest_is_drawn(down: str) -> None:
    source = Synthetic(5)
    reader = collector(source)
    reader.refresh()
    source.down = {down}
    found = reader.refresh()
    assert [each for each in found["problems"] if f"nobody answers for {down}" in each]
    assert len(found["workloads"]) == 5
    assert len(found["edges"]) == 4
    assert f"PROBLEM the {'pods' if down == 'proxies' else down} cannot be read" in screen(found)


def test_who_falls_silent_has_no_traffic_any_more() -> None:
    source = Synthetic(5)
    reader = collector(source)
    reader.refresh()
    assert reader.refresh()["edges"][0]["requestsPerSecond"] > 0
    source.silent = {f"svc-{n:03}" for n in range(5)}
    assert reader.refresh()["edges"] == []
    source.silent = set()
    assert len(reader.refresh()["edges"]) == 4


def test_pods_that_are_gone_are_forgotten() -> None:
    source = Synthetic(10)
    reader = collector(source)
    assert len(reader.refresh()["workloads"]) == 10
    source.count = 5
    assert len(reader.refresh()["workloads"]) == 5


def test_a_collector_has_a_first_picture_before_proxies_answer() -> None:
    source = Synthetic(5)
    source.stuck = {f"svc-{n:03}" for n in range(5)}
    reader = collector(source)
    reader.follow(60.0)
    found = reader.newest(20.0)
    reader.stop()
    assert len(found["workloads"]) == 5
    assert found["edges"] == []


class Down:
    """Nothing of it can be read."""

    def __getattr__(self, _name: str) -> Any:
        def read(*_: object) -> Any:
            raise Unavailable("no mesh runs here")

        return read


def test_a_mesh_that_has_gone_is_a_picture_too() -> None:
    found = collector(Down()).refresh()
    assert len(found["problems"]) == 4
    assert not found["ready"]
    assert "no mesh runs here" in screen(found)


def test_the_screen_has_the_busiest_edge_first() -> None:
    reader = collector(Synthetic(5))
    reader.refresh()
    found = dict(reader.refresh())
    found["edges"] = [{**edge, "requestsPerSecond": float(n), "errors": 0.25} for n, edge in enumerate(found["edges"])]
    lines = screen(found).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("FROM"))
    assert lines[at + 1].split()[:4] == ["shop/svc-003", "shop/svc-004", "3.0", "25.0%"]
    assert lines[at + 1].endswith("mTLS")
    assert "renew" in screen(found)
