"""Durations and regular expressions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.istio.durations import format_duration, parse_duration
from mesh.istio.regex import regex_error
from mesh.istio.rules import host_covers, host_error


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("0.5s", 0.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("1h2m", 3720.0),
        ("1h2m3.5s", 3723.5),
        ("250ms", 0.25),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("1ns", 1e-9),
        ("0", 0.0),
        ("0s", 0.0),
        ("-1s", -1.0),
        ("+1m", 60.0),
        ("600.000s", 600.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "5.5", "s", "5 s", "5sec", "1d", "1h 2m", "--1s", "1e3s", ".s", "٣s", "9" * 30 + "h"]
)
def test_what_is_no_duration_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|longest"):
        parse_duration(text)


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_a_written_duration_reads_back(microseconds: int) -> None:
    seconds = microseconds / 10**6
    assert math.isclose(parse_duration(format_duration(seconds)), seconds, rel_tol=1e-12, abs_tol=1e-9)


@given(st.text(max_size=20) | st.from_regex(r"-?([0-9]{1,20}(\.[0-9]{1,20})?(h|m|s|ms|us|ns)){1,3}", fullmatch=True))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert abs(seconds) < 2**63 / 10**9


# Each of these was put to google-re2 1.1 too, which agrees.
@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "",
            "a",
            r"\d+$",
            "(?i)^y(es)?$",
            "a(?i)b",
            "(?P<n>a)",
            "(?<n>a)",
            r"\pL",
            r"\p{Greek}",
            r"\Qa(b\E",
            r"\z",
            r"\A",
        ),
        *(
            "[]]",
            "[^]]",
            "[[:alpha:]]",
            r"[a-z\d-]",
            "a{2}",
            "a{,2}",
            "a{",
            "a{1000}",
            "^*",
            "(|a)",
            "()",
            r"\x{41}",
            "x(?i)*",
        ),
    ],
)
def test_expressions_of_re2(pattern: str) -> None:
    assert regex_error(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "a++",
            "a**",
            "a{2}{3}",
            "*a",
            "(*a)",
            "a|*b",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?<!a)",
            "(?>a)",
            "(?P=n)",
            "(?#c)",
        ),
        *(r"\1", r"\Z", r"\h", r"\u0041", r"\é", "\\", "[z-a]", "[a", "[]", "[[:foo:]]", r"[a-\d]", "(", ")", "(()"),
        *("a{1001}", "a{2,1}", "(a{500}){500}", r"\x4", r"\x{110000}", r"\p", "(?x)a", "(?P<a-b>c)", "[a-"),
        "(" * 1001 + ")" * 1001,
    ],
)
def test_expressions_that_re2_refuses(pattern: str) -> None:
    assert regex_error(pattern)


@given(st.text(alphabet="ab()[]{}*+?|^$\\-.:!=<>Pidwpx019, é", max_size=12))
def test_any_text_is_judged(pattern: str) -> None:
    assert isinstance(regex_error(pattern), str)


def test_hosts() -> None:
    assert host_error("reviews", wildcard=False) == ""
    assert host_error("reviews.prod.svc.cluster.local.", wildcard=False) == ""
    assert host_error("*", wildcard=True) == ""
    assert host_error("*.example.com", wildcard=True) == ""
    for bad in ("", "*", "*.example.com", "a..b", "-a", "a_b-", "x" * 64, "a/b", "a." * 200):
        assert host_error(bad, wildcard=False), bad
    for bad in ("", "*example.com", "a.*.b", "*.*.b", "*."):
        assert host_error(bad, wildcard=True), bad


@pytest.mark.parametrize(
    ("pattern", "host", "covers"),
    [
        ("*", "a.com", True),
        ("*.com", "a.com", True),
        ("*.com", "*.a.com", True),
        ("*.a.com", "*.com", False),
        ("*.a.com", "a.com", False),
        ("a.com", "a.com", True),
        ("a.com", "*.com", False),
    ],
)
def test_which_hosts_a_wildcard_covers(pattern: str, host: str, covers: bool) -> None:
    assert host_covers(pattern, host) is covers
