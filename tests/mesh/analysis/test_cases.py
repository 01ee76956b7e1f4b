"""Each code: a cluster in a file, and what is found in it. HEDDLE_REGENERATE=1 writes the findings anew."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mesh.analysis import istioctl, objects, page
from mesh.analysis.model import Severity
from mesh.analysis.registry import CHECKS, CODES, analyse, examine
from mesh.analysis.view import View
from mesh.assembly import snapshot_of
from mesh.manifest import documents

CASES = Path(__file__).parent / "cases"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


def view_of(name: str) -> View:
    text = (CASES / f"{name}.in.yaml").read_text()
    return View(snapshot_of(document.raw for document in documents(text, name)), now=NOW)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_found_is_the_golden_one(name: str) -> None:
    view = view_of(name)
    found = list(analyse(view))
    text = "".join(f"{line}\n" for line in sorted(f"{each.severity}: {each}" for each in found))
    golden = CASES / f"{name}.out.txt"
    if os.environ.get("HEDDLE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text(), "HEDDLE_REGENERATE=1 writes it anew"
    named = {each.about for each in found if each.code.number == name}
    assert named, "it fires"
    kinds = {about.kind for about in named}
    silent = [
        thing
        for check in CHECKS
        for kind in kinds.intersection(check.kinds)
        for thing in _all_of(view, kind)
        if not any(each.code.number == name for each in examine(view, thing))
    ]
    assert silent, "and there is one for which it does not"


def _all_of(view: View, kind: str) -> Iterable[Any]:
    core = {"Service": "services", "Pod": "pods", "Namespace": "namespaces"}
    things: Mapping[Any, Any] = getattr(view.snapshot, core[kind]) if kind in core else view.snapshot.of(kind)
    return things.values()


def test_every_code_has_a_case_and_every_case_a_code() -> None:
    by_itself = {code.number for code in objects.CODES}  # not of checks: tests/cli/test_analyze.py
    assert set(NAMES) == set(CODES) - by_itself
    assert {path.name.removesuffix(".out.txt") for path in CASES.glob("*.out.txt")} == set(NAMES)


def test_every_message_of_istioctl_has_a_code_or_a_reason() -> None:
    for code, (name, reason) in istioctl.MESSAGES.items():
        ours = [each.number for each in CODES.values() if code in each.istio]
        assert bool(ours) != bool(reason), f"{code} {name}"
    assert {each for code in CODES.values() for each in code.istio} <= istioctl.MESSAGES.keys()
    assert list(istioctl.MESSAGES) == sorted(istioctl.MESSAGES)


def test_the_page_is_up_to_date() -> None:
    assert page.FILE.read_text() == page.page(), "run: python -m mesh.analysis.page"


def test_codes_are_numbered_by_theme_and_say_what_to_do() -> None:
    for code in CODES.values():
        assert code.means.endswith(".")
        assert code.fix.endswith(".")
        assert isinstance(code.severity, Severity)
    assert len({code.name for code in CODES.values()}) == len(CODES)
    assert list(CODES) == sorted(CODES)
