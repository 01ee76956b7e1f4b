"""What a VirtualService does with requests: matches and their order, weights, and each action."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from discovery.explain.model import Request
from mesh.objects import Key
from tests.behaviour.world import Answer, World, thing

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Put = Callable[..., Any]
ECHO = "http://echo.mesh"
SUBSETS = thing(
    "DestinationRule",
    "subsets",
    {"host": "echo", "subsets": [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]},
)
OLD = {"destination": {"host": "old.plain.svc.cluster.local"}}


def to(subset: str, weight: int = 0, **more: Any) -> Answer:
    weighted = {"weight": weight} if weight else {}
    return {"destination": {"host": "echo", "subset": subset}, **weighted, **more}


def routes(*http: Answer, name: str = "case", **spec: Any) -> Answer:
    return thing("VirtualService", name, {"hosts": ["echo"], "http": list(http), **spec})


def answer_of(match: dict[str, Any], word: str) -> Answer:
    return {"match": [match], "directResponse": {"status": 200, "body": {"string": word}}}


MATCHES = routes(
    answer_of({"uri": {"exact": "/exact"}}, "uri exact"),
    answer_of({"uri": {"prefix": "/prefix/longer"}}, "uri longer prefix"),
    answer_of({"uri": {"prefix": "/prefix"}}, "uri prefix"),
    answer_of({"uri": {"regex": "/regex/[0-9]+"}}, "uri regex"),
    answer_of({"uri": {"exact": "/Case"}, "ignoreUriCase": True}, "ignore case"),
    answer_of({"headers": {"x-exact": {"exact": "yes"}}}, "header exact"),
    answer_of({"headers": {"x-prefix": {"prefix": "ab"}}}, "header prefix"),
    answer_of({"headers": {"x-regex": {"regex": "a+b"}}}, "header regex"),
    answer_of({"headers": {"x-present": {}}}, "header present"),
    answer_of({"headers": {"x-one": {"exact": "1"}, "x-two": {"exact": "2"}}}, "both headers"),
    answer_of({"uri": {"exact": "/without"}, "withoutHeaders": {"x-not": {}}}, "without header"),
    answer_of({"uri": {"exact": "/without"}, "withoutHeaders": {"x-not": {"exact": "2"}}}, "without value"),
    answer_of({"method": {"exact": "DELETE"}}, "method"),
    answer_of({"queryParams": {"q": {"exact": "1"}}}, "query exact"),
    answer_of({"queryParams": {"q": {"regex": "[a-f]+"}}}, "query regex"),
    answer_of({"authority": {"exact": "echo.mesh:81"}, "port": 81}, "port and authority"),
    answer_of({"sourceLabels": {"app": "another"}}, "somebody else"),
    {
        "match": [{"uri": {"exact": "/either"}}, {"headers": {"x-either": {"exact": "yes"}}}],
        "directResponse": {"status": 200, "body": {"string": "either"}},
    },
    answer_of({"uri": {"exact": "/mine"}, "sourceLabels": {"app": "client"}}, "my label"),
    answer_of({"uri": {"prefix": "/"}}, "default"),
    answer_of({"uri": {"exact": "/late"}}, "never"),
)


@pytest.fixture(scope="module")
def matches(module_case: Put) -> None:
    module_case(SUBSETS, MATCHES)


@pytest.mark.parametrize(
    ("order", "word"),
    [
        ({"url": "/exact"}, "uri exact"),
        ({"url": "/exact/more"}, "default"),
        ({"url": "/exact?a=b"}, "uri exact"),
        ({"url": "/prefix/longer/still"}, "uri longer prefix"),
        ({"url": "/prefixed"}, "uri prefix"),
        ({"url": "/regex/123"}, "uri regex"),
        ({"url": "/regex/12a"}, "default"),
        ({"url": "/cASE"}, "ignore case"),
        ({"url": "/EXACT"}, "default"),
        ({"headers": {"x-exact": "yes"}}, "header exact"),
        ({"headers": {"X-Exact": "yes"}}, "header exact"),
        ({"headers": {"x-exact": "YES"}}, "default"),
        ({"headers": {"x-prefix": "abc"}}, "header prefix"),
        ({"headers": {"x-regex": "aaab"}}, "header regex"),
        ({"headers": {"x-regex": "aaabc"}}, "default"),
        ({"headers": {"x-present": "whatever"}}, "header present"),
        ({"headers": {"x-one": "1", "x-two": "2"}}, "both headers"),
        ({"headers": {"x-one": "1"}}, "default"),
        ({"url": "/without"}, "without header"),
        ({"url": "/without", "headers": {"x-not": "1"}}, "without value"),
        ({"url": "/without", "headers": {"x-not": "2"}}, "default"),
        ({"method": "DELETE"}, "method"),
        ({"url": "/?q=1"}, "query exact"),
        ({"url": "/?q=abc"}, "query regex"),
        ({"url": "/?q=2"}, "default"),
        ({"port": ":81"}, "port and authority"),
        ({"url": "/either"}, "either"),
        ({"headers": {"x-either": "yes"}}, "either"),
        ({"url": "/mine"}, "my label"),
        ({"url": "/late"}, "default"),
        ({"url": "/exact", "headers": {"x-present": "x"}}, "uri exact"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("matches")
def test_a_match(world: World, order: dict[str, Any], word: str) -> None:
    url = f"{ECHO}{order.get('port', '')}{order.get('url', '/')}"
    answer = world.get(url, method=order.get("method", "GET"), headers=order.get("headers", {}))
    assert answer.get("body") == word


def test_explanations_are_compared(world: World, matches: None) -> None:
    """As in every test here: `world` explains each request, and compares."""
    before = world.explained.agreed
    world.many(f"{ECHO}/exact", 3)
    assert world.explained.agreed == before + 3
    wrong = world.get(f"{ECHO}/exact") | {"status": 299}
    with pytest.raises(AssertionError, match="explained as"):
        world.explained.compare(
            Request(Key("mesh", "client"), "echo.mesh", 80, "/exact"), {}, [wrong], lambda: [wrong], seconds=0
        )


def test_the_commands_ask_the_mesh_that_runs(world: World, matches: None, tmp_path: Path) -> None:
    told = world.mesh.json("explain", "mesh/client", "echo.mesh/exact")
    assert told["branches"][0]["outcome"]["status"] == 200
    assert told["passedOver"] == []
    file = tmp_path / "case.yaml"
    file.write_text(json.dumps(routes(answer_of({"uri": {"exact": "/exact"}}, "uri exact"))))
    told = world.mesh.json("diff", "-f", str(file))
    assert {change["part"] for each in told["differences"] for change in each["changes"]} == {"route"}
    told = world.mesh.json("analyze")
    assert [each["object"] for each in told["findings"] if each["code"] == "HDL0501"] == ["Namespace plain"]
    file.write_text(json.dumps(routes({"route": [to("v1")]}, {"route": [to("v9")]})))
    told = world.mesh.json("analyze", "-f", str(file), "--on-mesh")
    assert [each["code"] for each in told["findings"]] == ["HDL0102", "HDL0202"]


@pytest.fixture
def rules(case: Put, module_case: Put) -> Put:
    """Routes of the service echo, with its subsets, instead of those of the file."""
    module_case(SUBSETS)
    return lambda *http, **spec: case(routes(*http, **spec))


def seen(answer: Answer) -> Answer:
    assert answer.get("status") == 200, answer
    headers: Answer = answer["body"]["headers"]
    return headers


@pytest.mark.parametrize("shares", [(90, 10), (50, 50), (100, 0), (1, 3)])
def test_weights(world: World, rules: Put, shares: tuple[int, int]) -> None:
    rules({"route": [{**to("v1"), "weight": shares[0]}, {**to("v2"), "weight": shares[1]}]})
    answers = world.many(f"{ECHO}/", 300, parallel=4)
    count = Counter(answer["body"]["version"] for answer in answers)
    share = shares[0] / sum(shares)
    deviation = (300 * share * (1 - share)) ** 0.5
    assert abs(count["v1"] - 300 * share) <= 5 * deviation


def test_rewrite(world: World, rules: Put) -> None:
    rules(
        {
            "match": [{"uri": {"prefix": "/old/"}}],
            "rewrite": {"uri": "/new/", "authority": "elsewhere.example"},
            "route": [to("v1")],
        },
        {"match": [{"uri": {"exact": "/one"}}], "rewrite": {"uri": "/another"}, "route": [to("v1")]},
        {"route": [to("v1")]},
    )
    answer = world.get(f"{ECHO}/old/path?q=1")["body"]
    assert answer["path"] == "/new/path?q=1"
    assert answer["headers"]["host"] == "elsewhere.example"
    assert world.get(f"{ECHO}/one")["body"]["path"] == "/another"
    assert world.get(f"{ECHO}/older")["body"]["path"] == "/older"


def test_redirect_and_direct_response(world: World, rules: Put) -> None:
    rules(
        {"match": [{"uri": {"exact": "/moved"}}], "redirect": {"uri": "/there", "authority": "other.example"}},
        {"match": [{"uri": {"exact": "/found"}}], "redirect": {"scheme": "https", "redirectCode": 302}},
        {"match": [{"uri": {"exact": "/gone"}}], "directResponse": {"status": 410, "body": {"string": "no more"}}},
        {"route": [to("v1")]},
    )
    moved, found, gone = (world.get(f"{ECHO}{path}") for path in ("/moved", "/found", "/gone"))
    assert (moved["status"], moved["headers"]["location"]) == (301, "http://other.example/there")
    assert (found["status"], found["headers"]["location"]) == (302, "https://echo.mesh/found")
    assert (gone["status"], gone["body"]) == (410, "no more")


def test_timeout(world: World, rules: Put) -> None:
    rules({"match": [{"uri": {"prefix": "/short"}}], "timeout": "0.3s", "route": [to("v1")]}, {"route": [to("v1")]})
    assert world.get(f"{ECHO}/short?sleep=5")["status"] == 504
    assert world.get(f"{ECHO}/short")["status"] == 200
    assert world.get(f"{ECHO}/long?sleep=0.6")["status"] == 200


def test_retries(world: World, rules: Put) -> None:
    rules(
        {
            "match": [{"uri": {"prefix": "/thrice"}}],
            "retries": {"attempts": 2, "retryOn": "5xx"},
            "route": [to("v1")],
        },
        {
            "match": [{"uri": {"prefix": "/code"}}],
            "retries": {"attempts": 1, "retryOn": "503"},
            "route": [to("v1")],
        },
        {
            "match": [{"uri": {"prefix": "/try"}}],
            "retries": {"attempts": 2, "retryOn": "5xx", "perTryTimeout": "0.2s"},
            "route": [to("v1")],
        },
        {"match": [{"uri": {"prefix": "/never"}}], "retries": {"attempts": 0}, "route": [to("v1")]},
        {"route": [to("v1")]},
    )
    third = world.get(f"{ECHO}/thrice?fail=2&id=a")
    assert (third["status"], third["body"]["times"]) == (200, 3)
    assert world.get(f"{ECHO}/thrice?fail=3&id=b")["body"]["times"] == 3
    assert world.get(f"{ECHO}/code?fail=1&id=c")["body"]["times"] == 2
    assert world.get(f"{ECHO}/try?sleep=2")["status"] == 504
    assert world.get(f"{ECHO}/never?fail=1&id=d")["status"] == 503
    assert world.get(f"{ECHO}/default?fail=1&id=e")["body"]["times"] == 1


def test_headers_are_set_added_and_removed(world: World, rules: Put) -> None:
    per_destination = {"request": {"set": {"x-where": "v1"}}, "response": {"add": {"x-out": "destination"}}}
    rules(
        {
            "headers": {
                "request": {"set": {"x-set": "new"}, "add": {"x-add": "more"}, "remove": ["x-secret"]},
                "response": {"set": {"x-out": "rule"}, "remove": ["x-envoy-upstream-service-time"]},
            },
            "route": [to("v1", headers=per_destination)],
        }
    )
    answer = world.get(f"{ECHO}/", headers={"x-set": "old", "x-add": "some", "x-secret": "1"})
    headers = seen(answer)
    assert headers["x-set"] == "new"
    assert "more" in headers["x-add"]
    assert headers["x-where"] == "v1"
    assert "x-secret" not in headers
    assert "x-out" in answer["headers"]
    assert "x-envoy-upstream-service-time" not in answer["headers"]


def delays(world: World) -> int:
    """How many requests Envoy has delayed so far."""
    lines = world.agent("mesh/client", "admin", "GET", "/stats?filter=delays_injected").splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines)


def test_faults(world: World, rules: Put) -> None:
    always = {"percentage": {"value": 100}}
    rules(
        {
            "match": [{"uri": {"prefix": "/abort"}}],
            "fault": {"abort": {"httpStatus": 418, **always}},
            "route": [to("v1")],
        },
        {
            "match": [{"uri": {"prefix": "/half"}}],
            "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 50}}},
            "route": [to("v1")],
        },
        {
            "match": [{"uri": {"prefix": "/delay"}}],
            "fault": {"delay": {"fixedDelay": "0.2s", **always}},
            "route": [to("v1")],
        },
        {"route": [to("v1")]},
    )
    assert world.get(f"{ECHO}/abort")["status"] == 418
    count = Counter(answer["status"] for answer in world.many(f"{ECHO}/half", 200, parallel=4))
    assert set(count) == {200, 418}
    assert 60 < count[418] < 140
    before = delays(world)
    assert {answer["status"] for answer in world.many(f"{ECHO}/delay", 3)} == {200}
    assert delays(world) == before + 3
    assert world.get(f"{ECHO}/")["status"] == 200


def test_source_labels_choose_by_client(world: World, rules: Put) -> None:
    rules({"match": [{"sourceLabels": {"app": "lines"}}], "route": [to("v2")]}, {"route": [to("v1")]})
    assert {answer["body"]["version"] for answer in world.many(f"{ECHO}/", 10)} == {"v1"}
    assert {answer["body"]["version"] for answer in world.many(f"{ECHO}/", 10, "mesh/lines")} == {"v2"}


def test_a_missing_subset_or_host_answers_503_and_is_named(world: World, rules: Put) -> None:
    rules(
        {"match": [{"uri": {"prefix": "/subset"}}], "route": [to("v9")]},
        {"match": [{"uri": {"prefix": "/host"}}], "route": [{"destination": {"host": "nobody"}}]},
        {"route": [to("v1")]},
    )
    assert world.get(f"{ECHO}/subset")["status"] == 503
    assert world.get(f"{ECHO}/host")["status"] == 503
    assert world.get(f"{ECHO}/")["status"] == 200
    problems = world.problems()
    assert "v9" in problems
    assert "v1, v2" in problems
    assert "nobody" in problems


def test_routes_to_another_service_and_port(world: World, rules: Put) -> None:
    rules(
        {"match": [{"uri": {"prefix": "/old"}}], "route": [OLD]},
        {"route": [{"destination": {"host": "echo", "port": {"number": 81}}}]},
    )
    assert world.get(f"{ECHO}/old")["body"]["pod"].startswith("old-v1")
    assert world.get(f"{ECHO}/")["body"]["port"] == 8081


@pytest.mark.parametrize(("export_to", "used"), [([], True), (["*"], True), (["."], False), (["mesh"], True)])
def test_routes_of_another_namespace(world: World, case: Put, export_to: list[str], used: bool) -> None:
    spec = {"hosts": ["echo.mesh.svc.cluster.local"], "http": [{"directResponse": {"status": 299}}]}
    case(thing("VirtualService", "case", {**spec, "exportTo": export_to}, "plain"))
    assert world.get(f"{ECHO}/")["status"] == (299 if used else 200)


def test_tcp_routes(world: World, case: Put) -> None:
    case(
        thing("Service", "front", {"selector": {"app": "nobody"}, "ports": [{"name": "tcp", "port": 9100}]}),
        thing(
            "VirtualService",
            "case",
            {
                "hosts": ["front"],
                "tcp": [{"route": [{"destination": {"host": "lines", "port": {"number": 9000}}}]}],
            },
        ),
    )
    assert world.lines("front", 9100)["body"] == "a line"
