"""What discovery tells agents about trust, through the polls that they hold."""

from __future__ import annotations

import itertools
import time
from typing import Any

import gevent
import orjson
import pytest

from discovery.compiling import Compiler
from discovery.hub import Hub
from discovery.metrics import Metrics
from discovery.sessions import Sessions, Tools
from discovery.trust import TrustDesk, trust_json
from discovery.versions import Resources
from mesh.identity import Identity
from mesh.objects import Key
from mesh.wire import ConfigRequest, ProxyInfo, ResourceType, TrustReport
from svid.material import TrustBundle
from svid.trust import News, Order
from tests.discovery.test_compiling import TEXT, make
from tests.support.snapshots import snapshot

ME = Identity("cluster.local", "default", "a")
ONE = News(TrustBundle("cluster.local", 1, ("A\n",)))
BOTH = News(TrustBundle("cluster.local", 2, ("A\n", "B\n")))
ORDERED = News(BOTH.bundle, Order(1, "aa", 1.0, 2.0))


def render(_plan: object) -> Resources:
    return {ResourceType.CLUSTERS: {"a": ("1", b"{}")}}


class World:
    def __init__(self) -> None:
        self.hub = Hub(time.monotonic)
        numbers = itertools.count()
        self.desk = TrustDesk(lambda: self.sessions.wake())
        compiler = Compiler(make, render)
        tools = Tools(
            self.hub, compiler, Metrics(), lambda: "now", lambda: f"s{next(numbers)}", trust=self.desk.for_agent
        )
        self.sessions = Sessions(tools)
        self.base = snapshot(TEXT)
        self.hub.start()
        self.hub.publish(self.base, {}, time.monotonic())
        self.session, self.sequence = "", 0

    def ask(self, trust: TrustReport | None, hold: float = 20.0) -> Any:
        """A poll of the one agent; what it was told about trust, None when it was not answered."""
        proxy = ProxyInfo("default", "a-0", self.base.pods[Key("default", "a-0")].ip, agent_version="1")
        request = ConfigRequest(proxy, self.session, self.sequence, None, {}, hold, trust)
        reply = self.sessions.poll(request, ME)
        if reply is None:
            return None
        self.session, self.sequence = reply.session, reply.sequence
        return orjson.loads(reply.trust) if reply.trust else {}


@pytest.fixture
def world() -> World:
    made = World()
    made.desk.take(ONE)
    made.ask(TrustReport(1))
    return made


def test_a_held_poll_is_answered_with_the_news(world: World) -> None:
    waiting = gevent.spawn(world.ask, TrustReport(1))
    gevent.sleep(0.01)
    assert not waiting.ready()
    world.desk.take(BOTH)
    told = waiting.get(timeout=60)
    assert (told["sequence"], told["roots"]) == (2, ["A\n", "B\n"])
    assert world.ask(TrustReport(1), hold=0)["sequence"] == 2  # the answer was lost: it is told again


def test_it_is_not_told_again_while_envoy_takes_it(world: World) -> None:
    world.desk.take(BOTH)
    assert world.ask(TrustReport(1, known=(2, 0)), hold=0) is None
    assert world.ask(TrustReport(2, known=(2, 0)), hold=0) is None


def test_an_order_is_news_too(world: World) -> None:
    world.desk.take(ORDERED)
    assert world.ask(TrustReport(2), hold=0)["renewal"]["root"] == "aa"
    assert world.ask(TrustReport(2, order=1), hold=0) is None


def test_what_is_late_changes_nothing(world: World) -> None:
    world.desk.take(ORDERED)
    world.desk.take(ONE)
    assert world.ask(TrustReport(2, order=1), hold=0) is None
    assert world.ask(TrustReport(3, order=2), hold=0) is None  # the agent is ahead


def test_an_agent_that_would_not_understand_is_left_alone(world: World) -> None:
    world.desk.take(ORDERED)
    assert world.ask(None, hold=0) is None
    (proxy,) = trust_json(world.sessions)["proxies"]
    assert proxy["trust"] is None
    assert (proxy["namespace"], proxy["pod"], proxy["agentVersion"]) == ("default", "a-0", "1")


def test_what_agents_said_is_told(world: World) -> None:
    world.ask(TrustReport(1, 0, 5, "aa", "bb", (1, 0)), hold=0)
    (proxy,) = trust_json(world.sessions)["proxies"]
    assert proxy["connected"] is True
    assert proxy["trust"] == {"sequence": 1, "revision": 0, "order": 5, "root": "aa", "serial": "bb", "known": [1, 0]}
