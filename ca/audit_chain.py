"""The audit log's lines: how each is bound to the one before it, and what a log that was tampered with shows. Pure.

A line is a JSON object `{"n", "at", "event", ..., "previous"}`: its number, the moment (RFC 3339, microseconds), what
happened, and the SHA-256 of the line before it, whole, without its line end. So a line that was changed no longer fits
the one after it, and what was removed, put in or moved leaves a line whose `previous` is not the hash before it.
The end of a log has nothing after it: that it was cut off shows only beside an `Anchor`, a number and hash that are
kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

FIRST = "0" * 64  # what the first line has for the hash of the line before it
GAP = "gap"  # the event of a line that says: lines before me were lost


@dataclass(frozen=True, slots=True)
class Anchor:
    """A line that existed: its number, and its hash. `Anchor(0, FIRST)`: none yet."""

    number: int = 0
    hash: str = FIRST


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log turned out to be. `problem` is empty, or names the first line that is wrong."""

    lines: int
    first: int
    end: Anchor
    problem: str = ""


def line_of(anchor: Anchor, at: str, event: str, fields: Mapping[str, Any]) -> tuple[bytes, Anchor]:
    """The line after `anchor`, with its line end, and the anchor that it becomes."""
    body = {"n": anchor.number + 1, "at": at, "event": event, **fields, "previous": anchor.hash}
    raw = orjson.dumps(body)
    return raw + b"\n", Anchor(anchor.number + 1, hash_of(raw))


def hash_of(line: bytes) -> str:
    """Of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def verify(lines: Iterable[tuple[str, bytes]], expected: Anchor | None = None) -> Verdict:
    """Follow the chain through `lines`: each where it stands (`audit.log:12`), and its bytes without the line end.

    `expected` must be in it: with the anchor of a log's newest line, that its end is missing is found. A log whose
    first line is not number 1 is taken as the rest of one whose older files were removed; `Verdict.first` says so.
    """
    count, first, last, met = 0, 0, Anchor(), expected is None or expected.number == 0
    for where, raw in lines:
        count += 1
        number, previous, event, problem = _parsed(raw)
        if not problem and count == 1:
            first = number
            problem = "" if number > 1 or previous == FIRST else "the first line names a line before it"
        elif not problem:
            problem = _mismatch(last, number, previous)
        if not problem and event == GAP:
            problem = "the ca noted here, when it started, that lines before this one were lost"
        this = Anchor(number, hash_of(raw))
        if not problem and expected is not None and number == expected.number:
            met = True
            if this.hash != expected.hash:
                problem = "this line is not the one that was noted: it, or one before it, was changed"
        if problem:
            return Verdict(count, first, last, f"{where}: {problem}")
        last = this
    if not met:
        assert expected is not None
        if last.number < expected.number:
            return Verdict(
                count,
                first,
                last,
                f"the log ends with line {last.number}, and line {expected.number} existed: it was cut",
            )
        return Verdict(
            count, first, last, f"the log begins with line {first}, after line {expected.number} to look for"
        )
    return Verdict(count, first, last)


def _parsed(raw: bytes) -> tuple[int, str, str, str]:
    """Number, `previous`, event, and what is wrong with the line by itself."""
    try:
        body = json.loads(raw)
    except ValueError:
        return 0, "", "", "this is not a line of the audit log: it is not JSON"
    if not isinstance(body, dict):
        return 0, "", "", "this is not a line of the audit log: it is not a JSON object"
    number, previous = body.get("n"), body.get("previous")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1 or not isinstance(previous, str):
        return 0, "", "", "this is not a line of the audit log: it has no number, or no hash of the line before"
    return number, previous, str(body.get("event")), ""


def _mismatch(last: Anchor, number: int, previous: str) -> str:
    """Why a line of that number and `previous` does not follow `last`."""
    if number == last.number + 1:
        if previous == last.hash:
            return ""
        return f"its hash of the line before does not fit: line {last.number} was changed, or this one was put in"
    if number > last.number:
        return f"line {number} follows line {last.number}: lines between them were removed"
    return f"line {number} follows line {last.number}: lines were moved or repeated"
