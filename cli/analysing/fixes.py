"""Corrections of manifests where the way out is mechanical: lines go or are renamed, all others stay as they are.

Each correction is looked at before it counts: read again, the text must be what was there with that one change, and
nothing else. What is written so that lines do not tell (in one line of braces, by anchors) is left to its author. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from cli.analysing.found import Placed
from mesh.analysis.model import Fix
from mesh.manifest import Document, read_manifest
from mesh.problems import Path


def corrected(text: str, found: Iterable[Placed]) -> tuple[str, list[Placed]]:
    """The text of one file with what can be corrected, and the findings that are: the last in the file first, so that
    the places of the others hold."""
    done: list[Placed] = []
    for each in sorted(found, key=lambda placed: placed.line, reverse=True):
        if each.finding.fix is not None and each.document is not None:
            changed = _corrected(text, each.document.index, each.finding.fix)
            if changed is not None:
                text = changed
                done.append(each)
    return text, done


def _corrected(text: str, index: int, fix: Fix) -> str | None:
    """None where it cannot be done by lines."""
    before = read_manifest(text, "").documents
    document = before[index]
    path = fix.path if fix.rename else _whole(document.raw, fix.path)
    span = document.span_of(path)
    if span is None:
        return None
    lines = text.splitlines(keepends=True)
    first, end = span[0] - 1, span[1] - 1
    if fix.rename:
        lines[first] = lines[first].replace(str(path[-1]), fix.rename, 1)
    else:
        del lines[first:end]
    changed = "".join(lines)
    wanted = [each.raw for each in before]
    wanted[index] = _expected(document, path, fix)
    after = read_manifest(changed, "")
    return changed if not after.problems and [each.raw for each in after.documents] == wanted else None


def _whole(raw: Any, path: Path) -> Path:
    """What has nothing but this in it goes with it."""
    while len(path) > 1 and len(_at(raw, path[:-1])) == 1:
        path = path[:-1]
    return path


def _expected(document: Document, path: Path, fix: Fix) -> dict[str, Any]:
    raw = copy.deepcopy(document.raw)
    holder = _at(raw, path[:-1])
    if fix.rename:
        renamed = {fix.rename if key == path[-1] else key: value for key, value in holder.items()}
        holder.clear()
        holder.update(renamed)
    else:
        del holder[path[-1]]
    return raw


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value
