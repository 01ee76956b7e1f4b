"""Envoy's rules for domains, paths, headers and parameters, case by case."""

from __future__ import annotations

import pytest

from discovery.explain.matching import normalised, unjudged, virtual_host, why_not
from discovery.explain.model import Request
from discovery.plan.model import MatchKind, NamedMatch, RequestMatch, RouteTable, TextMatch, VirtualHost
from mesh.objects import Key

EXACT, PREFIX, REGEX, PRESENT = MatchKind.EXACT, MatchKind.PREFIX, MatchKind.REGEX, MatchKind.PRESENT


def request(path: str = "/", **headers: str) -> Request:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(Key("default", "client"), "web", 80, path, headers=pairs)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("web", "exact"),
        ("web:8080", "port"),
        ("a.example", "wild"),
        ("a.b.example", "longer"),
        ("example", "rest"),
        (".example", "rest"),
        ("b.example", "wild"),
        ("front-7", "begins"),
        ("front-", "rest"),
        ("other", "rest"),
    ],
)
def test_a_host_is_found_as_itself_then_by_the_longest_wildcard(authority: str, host: str) -> None:
    domains = {
        "exact": "web",
        "port": "web:8080",
        "wild": "*.example",
        "longer": "*.b.example",
        "begins": "front-*",
        "rest": "*",
    }
    table = RouteTable("80", tuple(VirtualHost(name, (domain,), ()) for name, domain in domains.items()))
    found, _ = virtual_host(table, authority)
    assert found is not None
    assert found.name == host


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/./b/../c", "/a/c"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a//b", "/a//b"),
        ("/%61%2Fb", "/a%2Fb"),
        ("/a\\b", "/a/b"),
        ("/a/.", "/a/"),
    ],
)
def test_paths_are_normalised_first(path: str, normal: str) -> None:
    assert normalised(path) == normal


@pytest.mark.parametrize(
    ("match", "asked", "takes"),
    [
        (RequestMatch(TextMatch(PREFIX, "/a")), request("/ab"), True),
        (RequestMatch(TextMatch(PREFIX, "/A", ignore_case=True)), request("/ab"), True),
        (RequestMatch(TextMatch(EXACT, "/a")), request("/a?x=1"), True),
        (RequestMatch(TextMatch(EXACT, "/a")), request("/a/"), False),
        (RequestMatch(TextMatch(REGEX, "/a")), request("/ab"), False),
        (RequestMatch(TextMatch(REGEX, "/a.")), request("/ab"), True),
        (RequestMatch(headers=(NamedMatch("x-a", TextMatch(EXACT, "1")),)), request(x_a="1"), True),
        (RequestMatch(headers=(NamedMatch("x-a", TextMatch(EXACT, "1")),)), request(), False),
        (RequestMatch(headers=(NamedMatch("x-a", TextMatch(EXACT, "1", invert=True)),)), request(), True),
        (RequestMatch(headers=(NamedMatch("x-a", TextMatch(EXACT, "1", invert=True)),)), request(x_a="1"), False),
        (RequestMatch(headers=(NamedMatch("x-a", TextMatch(PRESENT)),)), request(x_a=""), True),
        (RequestMatch(headers=(NamedMatch("x-a", TextMatch(PRESENT, invert=True)),)), request(x_a=""), False),
        (RequestMatch(headers=(NamedMatch(":authority", TextMatch(EXACT, "web")),)), request(), True),
        (RequestMatch(headers=(NamedMatch(":method", TextMatch(EXACT, "GET")),)), request(), True),
        (RequestMatch(query=(NamedMatch("q", TextMatch(EXACT, "1")),)), request("/?a=2&q=1&q=2"), True),
        (RequestMatch(query=(NamedMatch("q", TextMatch(PRESENT)),)), request("/?q"), True),
        (RequestMatch(query=(NamedMatch("q", TextMatch(EXACT, "1")),)), request("/#?q=1"), False),
    ],
)
def test_a_request_has_what_a_match_asks_for_or_it_is_said_what_is_missing(
    match: RequestMatch, asked: Request, takes: bool
) -> None:
    assert (why_not(match, asked, "http") == "") == takes


def test_an_expression_that_only_re2_reads_is_named() -> None:
    match = RequestMatch(TextMatch(REGEX, r"/\pL+"))
    assert unjudged(match) == (r"/\pL+",)
    assert why_not(match, request("/a"), "http")
