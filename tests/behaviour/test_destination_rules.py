"""How a DestinationRule has requests spread, kept together, limited, and taken from endpoints that fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.behaviour.world import CLIENT, Answer, World, echo, eventually, thing

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Put = Callable[..., Any]
ECHO = "http://echo.mesh"
V1, V2 = ({"name": name, "labels": {"version": name}} for name in ("v1", "v2"))


def rule(policy: Answer | None = None, *subsets: Answer, **spec: Any) -> Answer:
    traffic = {"trafficPolicy": policy} if policy else {}
    return thing("DestinationRule", "case", {"host": "echo", **traffic, "subsets": list(subsets), **spec})


def route(*http: Answer) -> Answer:
    return thing("VirtualService", "case", {"hosts": ["echo"], "http": list(http)})


def to(subset: str) -> Answer:
    return {"route": [{"destination": {"host": "echo", "subset": subset}}]}


def spread(world: World, times: int = 60, **order: Any) -> Counter[str]:
    answers = world.many(f"{ECHO}/", times, **order)
    assert {answer["status"] for answer in answers} == {200}
    return Counter(answer["body"]["version"] for answer in answers)


def test_subsets_choose_by_label(world: World, case: Put) -> None:
    case(rule(None, V1, V2), route({"match": [{"uri": {"prefix": "/two"}}], **to("v2")}, to("v1")))
    assert spread(world, 10) == {"v1": 10}
    assert world.get(f"{ECHO}/two")["body"]["version"] == "v2"


def test_a_subset_that_selects_nobody_answers_503(world: World, case: Put) -> None:
    case(rule(None, V1, {"name": "none", "labels": {"version": "v7"}}), route(to("none")))
    assert world.get(f"{ECHO}/")["status"] == 503


@pytest.mark.parametrize("simple", ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"])
def test_load_is_spread(world: World, case: Put, simple: str) -> None:
    case(rule({"loadBalancer": {"simple": simple}}))
    count = spread(world)
    assert set(count) == {"v1", "v2"}
    assert min(count.values()) >= 10


def test_round_robin_takes_turns(world: World, case: Put) -> None:
    """With one worker thread; each has turns of its own otherwise."""
    case(rule({"loadBalancer": {"simple": "ROUND_ROBIN"}}))
    count = spread(world)
    assert abs(count["v1"] - count["v2"]) <= 4


@pytest.mark.parametrize(
    ("hash_by", "order"),
    [
        pytest.param({"httpHeaderName": "x-user"}, lambda n: {"headers": {"x-user": f"user-{n}"}}, id="header"),
        pytest.param({"httpQueryParameterName": "user"}, lambda n: {"url": f"{ECHO}/?user={n}"}, id="query parameter"),
        pytest.param(
            {"httpCookie": {"name": "user", "ttl": "0s"}}, lambda n: {"headers": {"cookie": f"user={n}"}}, id="cookie"
        ),
    ],
)
def test_a_consistent_hash_keeps_who_is_equal_together(
    world: World, case: Put, hash_by: Answer, order: Callable[[int], Answer]
) -> None:
    case(rule({"loadBalancer": {"consistentHash": hash_by}}))
    chosen = []
    for number in range(12):
        answers = world.ask(CLIENT, {"url": f"{ECHO}/", "times": 5, **order(number)})
        versions = {answer["body"]["version"] for answer in answers}
        assert len(versions) == 1
        chosen += versions
    assert set(chosen) == {"v1", "v2"}


def test_a_cookie_is_given_to_who_has_none(world: World, case: Put) -> None:
    case(rule({"loadBalancer": {"consistentHash": {"httpCookie": {"name": "user", "path": "/", "ttl": "60s"}}}}))
    first = world.get(f"{ECHO}/")
    cookie = first["headers"]["set-cookie"].partition(";")[0]
    assert cookie.startswith("user=")
    assert spread(world, 10, headers={"cookie": cookie.replace('"', "")}) == {first["body"]["version"]: 10}


def test_a_hash_of_the_source_address_sends_a_client_to_one(world: World, case: Put) -> None:
    case(rule({"loadBalancer": {"consistentHash": {"useSourceIp": True}}}))
    assert len(spread(world, 20)) == 1


def test_what_overflows_the_connection_pool_is_refused(world: World, case: Put) -> None:
    pool = {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1, "maxRequestsPerConnection": 1}}
    case(rule({"connectionPool": pool}))
    answers = world.many(f"{ECHO}/?sleep=0.5", 12, parallel=12)
    count = Counter(answer["status"] for answer in answers)
    assert set(count) == {200, 503}
    overflowed = [answer for answer in answers if answer["status"] == 503]
    assert all(answer["headers"].get("x-envoy-overloaded") for answer in overflowed)
    case(rule({"loadBalancer": {"simple": "RANDOM"}}))
    assert {answer["status"] for answer in world.many(f"{ECHO}/?sleep=0.1", 12, parallel=12)} == {200}


def test_an_endpoint_that_fails_is_left_out(world: World, case: Put) -> None:
    detection = {"consecutive5xxErrors": 3, "interval": "0.1s", "baseEjectionTime": "600s", "maxEjectionPercent": 100}
    broken = echo("broken", {"app": "echo"}, container={"env": [{"name": "BROKEN", "value": "yes"}]})
    plain = route({"retries": {"attempts": 0}, "route": [{"destination": {"host": "echo"}}]})
    case(broken, plain, rule({"loadBalancer": {"simple": "ROUND_ROBIN"}}))
    eventually(lambda: 503 in statuses(world), "the broken pod gets no requests")
    assert statuses(world) == {200, 503}
    case(broken, plain, rule({"loadBalancer": {"simple": "ROUND_ROBIN"}, "outlierDetection": detection}))
    eventually(lambda: statuses(world) == {200}, "the broken pod is not left out")
    assert statuses(world) == {200}


def statuses(world: World) -> set[int]:
    return {answer["status"] for answer in world.many(f"{ECHO}/", 30)}


def test_a_port_has_settings_of_its_own(world: World, case: Put) -> None:
    sticky = {"consistentHash": {"httpHeaderName": "x-user"}}
    ports = [{"port": {"number": 81}, "loadBalancer": sticky}]
    case(rule({"loadBalancer": {"simple": "ROUND_ROBIN"}, "portLevelSettings": ports}))
    same = {"headers": {"x-user": "one"}}
    assert len(spread(world, 20, **same)) == 2
    other = world.many(f"{ECHO}:81/", 20, **same)
    assert len({answer["body"]["version"] for answer in other}) == 1


def test_a_subset_overrides_its_rule(world: World, case: Put) -> None:
    sticky = {"name": "sticky", "labels": {"app": "echo"}}
    sticky["trafficPolicy"] = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}
    case(
        rule({"loadBalancer": {"simple": "ROUND_ROBIN"}}, sticky),
        route({"match": [{"uri": {"prefix": "/s"}}], **to("sticky")}, {"route": [{"destination": {"host": "echo"}}]}),
    )
    same = {"headers": {"x-user": "one"}}
    assert len(spread(world, 20, **same)) == 2
    assert len({answer["body"]["version"] for answer in world.many(f"{ECHO}/s", 20, **same)}) == 1


def test_rules_of_the_clients_namespace_come_first(world: World, case: Put) -> None:
    """The rule of the service's namespace holds for clients elsewhere that have none of their own."""
    disabled = {"host": "echo.mesh.svc.cluster.local", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    case(thing("DestinationRule", "case", disabled, "plain"))
    assert "x-forwarded-client-cert" in world.get(f"{ECHO}/")["body"]["headers"]
