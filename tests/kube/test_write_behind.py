"""Writes that nobody waits for: the newest of each key, through outages, within bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kube.client import Refused
from kube.source import backoff
from kube.write_behind import MOST_TRIES, WriteBehind
from mesh.errors import HeddleError, NotFound, Unavailable
from tests.support.waiting import wait_for


class Server:
    """Takes what is written; `errors` are raised first, one a write; while `held`, a write does not end."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.errors: list[Exception] = []
        self.asked = 0
        self.held = threading.Event()
        self.held.set()

    def write(self, item: str) -> None:
        self.asked += 1
        assert self.held.wait(60)
        if self.errors:
            raise self.errors.pop(0)
        self.written.append(item)


@pytest.fixture
def server() -> Server:
    return Server()


@contextmanager
def queue(server: Server, limit: int = 100) -> Iterator[WriteBehind[str]]:
    made: WriteBehind[str] = WriteBehind(
        "test", server.write, limit=limit, per_second=10_000, pause=lambda failures, _: 0.001 * failures
    )
    made.start()
    try:
        yield made
    finally:
        server.held.set()
        made.stop()


def test_writes_in_order(server: Server) -> None:
    with queue(server) as writes:
        for n in range(50):
            assert writes.offer(n, str(n))
        wait_for(lambda: len(server.written) == 50)
    assert server.written == [str(n) for n in range(50)]


def test_the_newest_of_a_key_alone(server: Server) -> None:
    with queue(server) as writes:
        server.held.clear()
        writes.offer("first", "first")
        wait_for(lambda: server.asked == 1)
        for n in range(20):
            writes.offer("a", str(n))
        server.held.set()
        wait_for(lambda: len(server.written) == 2)
        assert server.written == ["first", "19"]
        assert writes.counts.superseded == 19


def test_an_outage_loses_nothing_and_an_old_item_never_replaces_a_newer(server: Server) -> None:
    server.errors = [Unavailable("away")] * 3
    with queue(server) as writes:
        server.held.clear()
        writes.offer("a", "old")
        wait_for(lambda: server.asked == 1)
        writes.offer("a", "new")
        writes.offer("b", "b")
        server.held.set()
        wait_for(lambda: len(server.written) == 2)
        assert sorted(server.written) == ["b", "new"]
        assert writes.counts.retried == 3
        assert writes.counts.refused == 0


def test_what_is_refused_is_dropped_and_the_next_is_written(server: Server) -> None:
    server.errors = [Refused(422, "it is wrong"), ValueError("a bug")]
    with queue(server) as writes:
        for name in "abc":
            writes.offer(name, name)
        wait_for(lambda: server.written == ["c"])
        assert writes.counts.refused == 2


@pytest.mark.parametrize("error", [Refused(403, "not yet"), Refused(401, "not yet"), NotFound("not yet")])
def test_a_refusal_that_may_pass_is_tried_again_for_a_while(server: Server, error: HeddleError) -> None:
    server.errors = [error, error]
    with queue(server) as writes:
        writes.offer("a", "a")
        wait_for(lambda: server.written == ["a"])
        server.errors = [error] * MOST_TRIES
        writes.offer("b", "b")
        wait_for(lambda: writes.counts.refused == 1)
        assert server.written == ["a"]
        assert writes.counts.retried == 2 + MOST_TRIES - 1


def test_for_how_long_it_is_tried_again() -> None:
    """Longer than an API server takes that has just started, and not for minutes."""
    shortest, longest = (sum(backoff(n, random) for n in range(1, MOST_TRIES)) for random in (0.0, 1.0))
    assert 10 < shortest < longest < 25


def test_a_full_queue_takes_known_keys_only(server: Server) -> None:
    with queue(server, limit=2) as writes:
        server.held.clear()
        writes.offer("at work", "x")
        wait_for(lambda: server.asked == 1)
        assert writes.offer("a", "1")
        assert writes.offer("b", "1")
        assert not writes.offer("c", "1")
        assert writes.offer("a", "2")
        assert len(writes) == 3  # with the one at work
        assert writes.counts.dropped == 1


def test_the_end_writes_what_waits_or_says_what_is_left(server: Server) -> None:
    with queue(server) as writes:
        for n in range(20):
            writes.offer(n, str(n))
        assert writes.stop(10.0) == 0
        assert len(server.written) == 20
        assert not writes.offer("late", "late")
    server.errors = [Unavailable("away")] * 1000
    with queue(server) as writes:
        writes.offer("a", "a")
        writes.offer("b", "b")
        assert writes.stop(0.0) + server.asked >= 2
        assert "a" not in server.written
