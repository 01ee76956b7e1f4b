"""The bookkeeping for Envoys without an agent. tests/behaviour/test_bare_envoy.py has a real one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from discovery.bare import ANSWERS_BEFORE_REFUSAL, BareProxy, parse_poll, select
from discovery.compiling import Compiled, Compiler
from discovery.hub import Hub
from discovery.metrics import Metrics
from discovery.sessions import Tools
from mesh.errors import InvalidInput, NotFound
from mesh.objects import Key, parse_pod
from mesh.wire import ResourceType
from tests.discovery.harness import pod

NODE = "sidecar~10.0.0.1~a-0.default~cluster.local"


def request(**more: Any) -> dict[str, Any]:
    return {"node": {"id": NODE}, **more}


@pytest.mark.parametrize(
    "body",
    [
        request(version_info="v", resource_names=["b", "a", "a"]),
        request(versionInfo="v", resourceNames=["a", "b"], typeUrl="x", unknown=1),
    ],
)
def test_both_spellings_of_a_request(body: dict[str, Any]) -> None:
    poll = parse_poll("endpoints", body)
    assert (poll.key, poll.ip, poll.kind) == (Key("default", "a-0"), "10.0.0.1", ResourceType.ENDPOINTS)
    assert (poll.names, poll.version) == (("a", "b"), "v")


def test_a_star_is_everything() -> None:
    assert parse_poll("clusters", request(resource_names=["*"])).names == ()


def test_pods_with_dots_in_their_names() -> None:
    poll = parse_poll("clusters", {"node": {"id": "sidecar~10.0.0.1~a.b.default~default.svc.cluster.local"}})
    assert poll.key == Key("default", "a.b")


@pytest.mark.parametrize("node", ["", "a", "sidecar~10.0.0.1~a~d", "~~~", "sidecar~10.0.0.1~a.default", 7, None])
def test_nodes_that_name_no_pod(node: object) -> None:
    with pytest.raises(InvalidInput, match="does not name a pod"):
        parse_poll("clusters", {"node": {"id": node}})


def test_virtual_hosts_are_no_type_of_envoys() -> None:
    with pytest.raises(NotFound, match="virtualHosts"):
        parse_poll("virtualHosts", request())


COMPILED = Compiled(
    resources={
        ResourceType.ROUTES: {"80": ("r", b'{"name":"80"}'), "81": ("s", b'{"name":"81"}')},
        ResourceType.VIRTUAL_HOSTS: {"80/a": ("v", b'{"name":"a"}'), "80/b": ("w", b'{"name":"b"}')},
    }
)


def test_routes_are_put_together() -> None:
    found = select(COMPILED, ResourceType.ROUTES, ("80",))
    assert json.loads(found["80"][1]) == {"name": "80", "virtual_hosts": [{"name": "a"}, {"name": "b"}]}
    assert json.loads(select(COMPILED, ResourceType.ROUTES, ())["81"][1]) == {"name": "81", "virtual_hosts": []}


def test_a_virtual_host_changes_the_version_of_its_route_alone() -> None:
    changed = Compiled(
        resources={
            **COMPILED.resources,
            ResourceType.VIRTUAL_HOSTS: {"80/a": ("v2", b'{"name":"a"}'), "80/b": ("w", b'{"name":"b"}')},
        }
    )
    before, after = select(COMPILED, ResourceType.ROUTES, ()), select(changed, ResourceType.ROUTES, ())
    assert before["80"][0] != after["80"][0]
    assert before["81"][0] == after["81"][0]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tools(clock: Clock) -> Tools:
    compiler = Compiler(lambda *_: None, lambda _: {})  # type: ignore[arg-type,return-value]
    return Tools(Hub(clock), compiler, Metrics(), lambda: "now", lambda: "id")


def test_a_refusal_is_answered_after_longer_and_longer_pauses(tools: Tools, clock: Clock) -> None:
    poll = parse_poll("listeners", request())
    proxy = BareProxy(tools, parse_pod(pod("a-0", "10.0.0.1")), poll)
    subscription = proxy._subscription(poll)
    for _ in range(ANSWERS_BEFORE_REFUSAL):
        assert proxy._is_news(subscription, "old", "bad")
    pauses = []
    for _ in range(7):
        assert not proxy._is_news(subscription, "old", "bad")
        pauses.append(subscription.again - clock.now)
        clock.now = subscription.again
        assert proxy._is_news(subscription, "old", "bad")
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert proxy._is_news(subscription, "old", "good"), "something else is told at once"
    assert not proxy._is_news(subscription, "good", "good")
    assert not subscription.refused


def test_a_new_subscription_to_what_was_taken_is_answered_at_once(tools: Tools) -> None:
    poll = parse_poll("endpoints", request(resource_names=["a"]))
    proxy = BareProxy(tools, parse_pod(pod("a-0", "10.0.0.1")), poll)
    subscription = proxy._subscription(poll)
    for _ in range(10):
        assert proxy._is_news(subscription, "", "one")
        assert not proxy._is_news(subscription, "one", "one")
