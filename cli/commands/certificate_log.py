"""`heddle certificates verify-log`: whether the ca's audit log is whole and as it was written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ca.audit import NAME, files_of, lines_of
from ca.audit_chain import Anchor, Verdict, verify
from ca.ledger import LEDGER, audit_end_of
from cli.mesh_access import state_dir
from cli.output import output_option, show
from mesh.errors import InvalidInput, NotFound

STANDARD_INPUT = "-"
_ANCHOR = re.compile(r"(?P<number>[0-9]+):(?P<hash>[0-9a-f]{64})\Z")


@click.command("verify-log")
@click.argument("file", required=False, default="", metavar="[FILE|-]")
@click.option("--expect", default="", metavar="N:HASH", help="A line that must be in it, as noted from an earlier run.")
@output_option
def command(file: str, expect: str, output: str) -> None:
    """Check the audit log of a ca: that no line was changed, removed, put in, moved or cut off.

    FILE is the newest file of the log, `audit.log` in the ca's state directory; older ones beside it are read before
    it, and the ledger beside it says which line was the newest. Without FILE: the log of the embedded mesh. With -,
    what a ca wrote to its standard output (`kubectl logs`); lines that are not of the audit log are passed over.

    The last line printed, N:HASH, is worth keeping elsewhere: with --expect it shows later that the log was not cut or
    written anew by somebody who could change all of its files. Leaves with 1 when the log is not as it was written.
    """
    anchors = [_anchor(expect)] if expect else []
    if file == STANDARD_INPUT:
        lines = list(_of_output())
    else:
        path = Path(file) if file else state_dir() / "ca" / NAME
        if not path.is_file():
            raise NotFound(f"there is no audit log {path}", hint="name the file audit.log of a ca's state directory")
        if path.name == NAME and (path.parent / LEDGER).is_file():
            anchors.append(audit_end_of(path.parent / LEDGER))  # before the log is read: it grows meanwhile
        try:
            lines = list(lines_of(files_of(path) if path.name == NAME else [path]))
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    verdicts = [verify(lines, anchor) for anchor in anchors] or [verify(lines)]
    verdict = next((found for found in verdicts if found.problem), verdicts[0])
    show(_as_json(verdict), output, lambda _: _text(verdict))
    if verdict.problem:
        raise click.exceptions.Exit(1)


def _of_output() -> Iterator[tuple[str, bytes]]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        line = raw.removesuffix(b"\n")
        try:
            body = json.loads(line)
        except ValueError:
            continue
        if isinstance(body, dict) and {"n", "previous"} <= body.keys():
            yield f"line {number}", line


def _anchor(text: str) -> Anchor:
    match = _ANCHOR.match(text)
    if match is None:
        raise InvalidInput(f"{text!r} is not N:HASH", field="--expect", hint="such as verify-log prints at its end")
    return Anchor(int(match["number"]), match["hash"])


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "lines": verdict.lines,
        "first": verdict.first,
        "last": verdict.end.number,
        "hash": verdict.end.hash,
        "problem": verdict.problem,
    }


def _text(verdict: Verdict) -> str:
    if verdict.problem:
        return f"broken: {verdict.problem}\nwhole up to {verdict.end.number}:{verdict.end.hash}"
    if not verdict.lines:
        return "the log is empty"
    since = "" if verdict.first == 1 else f", from line {verdict.first} on: older files were removed"
    return f"whole: {verdict.lines} lines{since}\n{verdict.end.number}:{verdict.end.hash}"
