"""Refusals as events: one for the same thing, with a count, and never longer than the API allows."""

from __future__ import annotations

from typing import Any

from ca.refusals import FORGET_SECONDS, MOST_REMEMBERED, SERIES_SECONDS, Refusals, event
from kube.events import LONGEST_NOTE
from mesh.errors import Forbidden
from svid.material import PodRef

POD = PodRef("default", "reviews-1", "uid-1")


class World:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.offered: list[Any] = []
        self.refusals = Refusals("heddle-ca-0", lambda: self.time)

    def refuse(self, message: str = "no", pod: PodRef = POD) -> None:
        self.refusals.refused(pod, Forbidden(message), lambda _key, series: self.offered.append(series))


def test_the_event() -> None:
    world = World()
    world.refuse("pod default/reviews-1 is being deleted")
    made = event(world.offered[0], "heddle-ca-0")
    assert made["regarding"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "default",
        "name": "reviews-1",
        "uid": "uid-1",
    }
    assert made["note"] == "pod default/reviews-1 is being deleted"
    assert made["eventTime"] == "2027-01-15T08:00:00.000000Z"
    assert made["metadata"]["name"].startswith("reviews-1.")


def test_the_same_again_is_counted_and_written_once_a_minute() -> None:
    world = World()
    for _ in range(10):
        world.refuse()
        world.time += 1
    assert len(world.offered) == 1
    assert world.offered[0].count == 10
    world.time += SERIES_SECONDS
    world.refuse()
    assert [series.count for series in world.offered] == [11, 11]
    assert world.offered[0] is world.offered[1]


def test_other_reasons_other_pods_and_a_long_time_are_events_of_their_own() -> None:
    world = World()
    world.refuse("a")
    world.refuse("b")
    world.refuse("a", PodRef("default", "reviews-1", "uid-2"))
    world.time += FORGET_SECONDS + 1
    world.refuse("a")
    assert len({series.name for series in world.offered}) == len(world.offered) == 4


def test_long_names_and_notes_fit() -> None:
    world = World()
    world.refuse("ä" * 5000, PodRef("default", "n" * 253, "uid"))
    made = event(world.offered[0], "r" * 300)
    assert len(made["note"].encode()) <= LONGEST_NOTE
    assert len(made["metadata"]["name"]) <= 253
    assert len(made["reportingInstance"]) == 128


def test_what_is_remembered_is_bounded() -> None:
    world = World()
    for n in range(MOST_REMEMBERED + 500):
        world.refuse(str(n))
    assert len(world.refusals._series) == MOST_REMEMBERED
