"""The watch says yes, and only yes; everything else is asked."""

from __future__ import annotations

from typing import Any

import pytest

from ca.callers import PodFacts
from ca.pods import STALE, PodWatch, ask_api
from kube.client import connect
from kube.source import Changed, Listed, Progress
from mesh.errors import Unavailable
from tests.ca.harness import ApiServer, TokenMint


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


class Asked:
    """The fallback: remembers what it was asked, and knows nothing."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str, str]] = []

    def __call__(self, *question: str) -> PodFacts | None:
        self.names.append(question)  # type: ignore[arg-type]
        return None


def pod(name: str, uid: str, node: str = "n") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "a", "name": name, "uid": uid},
        "spec": {"serviceAccountName": "s", "nodeName": node},
    }


def watch() -> tuple[PodWatch, Asked, Clock]:
    asked, clock = Asked(), Clock()
    return PodWatch(asked, clock), asked, clock


def test_knows_what_was_listed_and_what_changed() -> None:
    pods, asked, _ = watch()
    pods.take(Listed("Pod", (pod("x", "1"), pod("y", "2")), 1))
    pods.take(Changed("Pod", pod("z", "3"), deleted=False, resource_version=2))
    assert pods("a", "x", "1") == PodFacts("1", "s", "n")
    assert pods("a", "z", "3") == PodFacts("3", "s", "n")
    assert not asked.names


def test_asks_for_what_it_does_not_know() -> None:
    pods, asked, _ = watch()
    assert pods("a", "x", "1") is None
    pods.take(Listed("Pod", (pod("x", "1"),), 1))
    assert pods("a", "x", "another uid") is None
    assert pods("b", "x", "1") is None
    pods.take(Changed("Pod", pod("x", "1"), deleted=True, resource_version=2))
    assert pods("a", "x", "1") is None
    assert len(asked.names) == 4


def test_a_new_list_replaces_the_old() -> None:
    pods, asked, _ = watch()
    pods.take(Listed("Pod", (pod("x", "1"),), 1))
    pods.take(Listed("Pod", (), 2))
    assert pods("a", "x", "1") is None
    assert asked.names


def test_a_silent_watch_is_not_believed_until_it_speaks_again() -> None:
    pods, asked, clock = watch()
    pods.take(Listed("Pod", (pod("x", "1"),), 1))
    clock.time += STALE
    assert pods("a", "x", "1") is None
    assert asked.names
    pods.take(Progress("Pod", 9))
    assert pods("a", "x", "1") is not None


def test_by_get() -> None:
    with ApiServer(TokenMint()) as api:
        api.add_pod("a", "x", "1", "s")
        lookup = ask_api(connect(api.url))
        assert lookup("a", "x", "1") == PodFacts("1", "s", "node-1")
        assert lookup("a", "y", "1") is None
        api.broken = True
        with pytest.raises(Unavailable):
            lookup("a", "x", "1")
    with pytest.raises(Unavailable):
        lookup("a", "x", "1")


def test_a_pod_that_has_no_node_yet_is_asked_for_again() -> None:
    """A token is only made for a pod that has its node: the watch is behind."""
    pods, asked, _ = watch()
    pods.take(Listed("Pod", (pod("x", "1", node=""),), 1))
    assert pods("a", "x", "1") is None
    assert asked.names == [("a", "x", "1")]


def test_knows_which_pods_end() -> None:
    pods, asked, _ = watch()
    ending, over = pod("x", "1"), pod("y", "2")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    over["status"] = {"phase": "Succeeded"}
    pods.take(Listed("Pod", (ending, over), 1))
    assert pods("a", "x", "1") == PodFacts("1", "s", "n", deleting=True)
    assert pods("a", "y", "2") == PodFacts("2", "s", "n", finished=True)
    assert not asked.names
