"""docs/conformance.md: each requirement has a test, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split("|")]
    for line in (ROOT / "docs" / "conformance.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| Requirement")
]


def test_there_are_rows() -> None:
    assert len(ROWS) > 30
    assert len({(row[0], row[2]) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[2]}: {row[0]}")
def test_its_test_is_there(row: list[str]) -> None:
    assert row[2] in ("issued", "accepted")
    match = re.fullmatch(r"(?P<file>[\w/]+\.py)::(?P<function>test_\w+)(\[(?P<case>[\w-]+)\])?", row[3])
    assert match is not None, row[3]
    source = (ROOT / match["file"]).read_text()
    assert f"\ndef {match['function']}(" in source
    assert match["case"] is None or f'"{match["case"]}": ' in source
