"""Sessions under the scheduling of gevent: what comes while a woken poll has not run yet."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import gevent
import pytest

from discovery.compiling import Compiler
from discovery.hub import Hub
from discovery.metrics import Metrics
from discovery.sessions import Sessions, Tools
from discovery.versions import Resources
from mesh.errors import Gone, Unavailable
from mesh.identity import Identity
from mesh.objects import Key
from mesh.snapshot import Snapshot
from mesh.wire import Applied, ConfigRequest, ProxyInfo, ResourceType
from tests.discovery.test_compiling import TEXT, make
from tests.support.snapshots import snapshot

KEY = Key("default", "a-0")
ME = Identity("cluster.local", "default", "a")


class World:
    """A hub with one pod; `content` is what its proxy should have."""

    def __init__(self) -> None:
        self.content = "one"
        self.base = snapshot(TEXT)
        self.hub = Hub(time.monotonic)
        numbers = itertools.count()
        self.metrics = Metrics()
        tools = Tools(self.hub, Compiler(make, self.render), self.metrics, lambda: "now", lambda: f"s{next(numbers)}")
        self.sessions = Sessions(tools)
        self.pod = self.base.pods[KEY]
        self.hub.start()
        self.publish()

    def render(self, _plan: object) -> Resources:
        return {ResourceType.CLUSTERS: {"a": (self.content, self.content.encode())}}

    def publish(self, content: str = "", *, ago: float = 0.0, **change: Any) -> None:
        """A change of what is wanted, which arrived `ago` seconds before; without `content`, of the version alone."""
        self.content = content or self.content
        before = self.hub.moment.snapshot if self.hub.moment else self.base
        now = before.replacing(resource_version=before.resource_version + 1, **change)
        if content:
            now = now.replacing(services=dict(now.services))
        self.hub.publish(now, {}, time.monotonic() - ago)

    def ask(self, session: str = "", sequence: int = 0, *, applied: int = 0, hold: float = 20.0) -> Any:
        took = {"clusters": Applied(applied, "")} if applied else {}
        proxy = ProxyInfo("default", "a-0", self.pod.ip)
        return self.sessions.poll(ConfigRequest(proxy, session, sequence, None, took, hold), ME)


@pytest.fixture
def world() -> World:
    return World()


def held(world: World, session: str, sequence: int) -> gevent.Greenlet:
    greenlet = gevent.spawn(world.ask, session, sequence, applied=sequence)
    gevent.sleep(0.02)
    assert not greenlet.ready()
    return greenlet


def test_news_survive_a_mere_version_that_follows_at_once(world: World) -> None:
    first = world.ask()
    waiting = held(world, first.session, 1)
    world.publish("two")
    moment = world.hub.moment
    assert moment is not None
    (session,) = world.sessions
    session.refresh(moment)  # wakes the poll, which has had no turn yet ...
    session.unchanged(moment)  # ... when a bookmark comes
    reply = waiting.get(timeout=60)
    assert reply is not None
    assert reply.delta.changed["clusters"]["a"][0] == "two"


def test_news_that_are_taken_back_wake_nobody_for_nothing(world: World) -> None:
    first = world.ask()
    waiting = held(world, first.session, 1)
    (session,) = world.sessions
    for content in ("two", "one"):
        world.publish(content)
        assert world.hub.moment is not None
        session.refresh(world.hub.moment)
    gevent.sleep(0.05)
    assert not waiting.ready()
    world.publish("three")
    assert waiting.get(timeout=60).sequence == 2


def test_many_changes_are_one_answer_with_the_newest(world: World) -> None:
    first = world.ask()
    waiting = held(world, first.session, 1)
    for number in range(50):
        world.publish(f"change {number}")
    assert waiting.get(timeout=60).delta.changed["clusters"]["a"][0] == "change 49"


def test_applied_by_all_is_when_the_agent_says_so(world: World) -> None:
    first = world.ask()
    waiting = held(world, first.session, 1)
    world.publish("two")
    newest = world.hub.moment
    assert newest is not None
    reply = waiting.get(timeout=60)
    assert world.hub.applied_by_all(newest.snapshot.resource_version, "", 0.05) is None
    held(world, first.session, reply.sequence)
    found = world.hub.applied_by_all(newest.snapshot.resource_version, "", 20)
    assert found is newest
    assert found.applied is not None


def test_a_proxy_that_begins_is_not_late_for_what_changed_before(world: World) -> None:
    world.publish("long ago", ago=3600)
    first = world.ask()
    waiting = held(world, first.session, 1)
    assert converged(world) == (1, pytest.approx(0, abs=600))
    world.publish("slow", ago=1800)
    held(world, first.session, waiting.get(timeout=20).sequence)
    assert converged(world) == (2, pytest.approx(0, abs=600)), "it began after that, too"


def converged(world: World) -> tuple[float, float]:
    """How many changes proxies have applied, and the seconds that this took them in all."""
    lines = dict(line.rsplit(" ", 1) for line in world.metrics.text().decode().splitlines())
    name = "pilot_proxy_convergence_time"
    return float(lines[f"{name}_count"]), float(lines[f"{name}_sum"])


def test_a_pod_that_is_replaced_ends_the_session(world: World) -> None:
    first = world.ask()
    waiting = held(world, first.session, 1)
    other = replace(world.pod, meta=replace(world.pod.meta, uid="another"))
    world.publish(pods={KEY: other})
    with pytest.raises(Gone):
        waiting.get(timeout=60)
    assert list(world.sessions) == []
    assert not world.hub.members


def test_closing_answers_everyone(world: World) -> None:
    first = world.ask()
    waiting = held(world, first.session, 1)
    world.hub.close()
    with pytest.raises(Unavailable, match="shutting down"):
        waiting.get(timeout=60)
    with pytest.raises(Unavailable):
        world.ask()


def test_sessions_that_are_not_heard_of_expire(world: World) -> None:
    world.ask()
    (session,) = world.sessions
    assert not session.expired(time.monotonic())
    assert session.expired(time.monotonic() + 1000)


def test_before_the_first_snapshot_callers_wait() -> None:
    hub = Hub(time.monotonic)
    with pytest.raises(Unavailable, match="has not read"):
        hub.current(0.01)
    waiting = gevent.spawn(hub.current, 20)
    gevent.sleep(0.01)
    hub.publish(Snapshot(), {}, 0.0)
    assert waiting.get(timeout=60).generation == 1
