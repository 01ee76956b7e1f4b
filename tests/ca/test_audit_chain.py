"""The audit log's chain: each way of tampering is found, and the first line that is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ca.audit_chain import FIRST, Anchor, Verdict, hash_of, line_of, verify


def log(count: int) -> list[bytes]:
    lines, end = [], Anchor()
    for n in range(1, count + 1):
        line, end = line_of(end, f"2030-01-01T00:00:{n:02d}Z", "issue", {"serial": f"{n:x}", "identity": "ä"})
        lines.append(line.removesuffix(b"\n"))
    return lines


def judged(lines: list[bytes], expected: Anchor | None = None) -> Verdict:
    return verify([(f"audit.log:{n}", line) for n, line in enumerate(lines, 1)], expected)


def end_of(lines: list[bytes]) -> Anchor:
    return Anchor(len(lines), hash_of(lines[-1]))


def edited(line: bytes, **change: object) -> bytes:
    return json.dumps({**json.loads(line), **change}, separators=(",", ":")).encode()


def test_whole() -> None:
    lines = log(5)
    assert judged(lines, end_of(lines)) == Verdict(5, 1, end_of(lines))
    assert json.loads(lines[0])["previous"] == FIRST


def test_nothing_yet() -> None:
    assert judged([], Anchor()) == Verdict(0, 0, Anchor())


TAMPERED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "changed": (lambda log: [*log[:2], edited(log[2], serial="ff"), *log[3:]], "audit.log:4: .* line 3 was changed"),
    "removed": (lambda log: log[:2] + log[3:], "audit.log:3: line 4 follows line 2: lines between them were removed"),
    "moved": (lambda log: [log[0], log[2], log[1], *log[3:]], "audit.log:2: line 3 follows line 1"),
    "repeated": (lambda log: [*log[:3], log[2], *log[3:]], "audit.log:4: line 3 follows line 3: .* repeated"),
    "put in": (
        lambda log: [*log[:2], line_of(Anchor(2, hash_of(log[1])), "t", "issue", {})[0][:-1], *log[2:]],
        "audit.log:4: line 3 follows line 3",
    ),
    "cut": (lambda log: log[:4], "ends with line 4, and line 6 existed: it was cut"),
    "emptied": (lambda _log: [], "ends with line 0, and line 6 existed: it was cut"),
    "last changed": (lambda log: [*log[:5], edited(log[5], serial="0")], "audit.log:6: this line is not the one"),
    "written anew": (lambda log: rewritten(log, serial="0"), "audit.log:6: this line is not the one that was noted"),
    "garbage": (lambda log: [*log[:3], b"hello", *log[3:]], "audit.log:4: .* not JSON"),
    "no object": (lambda log: [b"[]", *log], "audit.log:1: .* not a JSON object"),
    "no number": (lambda log: [edited(log[0], n="1"), *log[1:]], "audit.log:1: .* has no number"),
    "a beginning that is none": (lambda log: [edited(log[0], previous="aa"), *log[1:]], "audit.log:1: the first line"),
    "noted by the ca": (
        lambda log: [*log, line_of(end_of(log), "t", "gap", {})[0][:-1]],
        "audit.log:7: the ca noted here",
    ),
}


def rewritten(lines: list[bytes], **change: object) -> list[bytes]:
    """By somebody who knows the format: every hash fits."""
    anew, end = [], Anchor()
    for line in lines:
        body = {**json.loads(line), **change}
        fields = {name: value for name, value in body.items() if name not in ("n", "at", "event", "previous")}
        raw, end = line_of(end, body["at"], body["event"], fields)
        anew.append(raw[:-1])
    return anew


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered(name: str) -> None:
    import re

    tamper, said = TAMPERED[name]
    lines = log(6)
    problem = judged(tamper(lines), end_of(lines)).problem
    assert re.search(said, problem), problem


def test_only_an_anchor_shows_a_cut() -> None:
    lines = log(6)
    assert not judged(lines[:4]).problem
    assert judged(lines[:4], end_of(lines)).problem


def test_older_files_may_be_gone() -> None:
    lines = log(6)
    verdict = judged(lines[3:], end_of(lines))
    assert (verdict.problem, verdict.first, verdict.lines) == ("", 4, 3)
    assert "after line 2" in judged(lines[3:], Anchor(2, hash_of(lines[1]))).problem
