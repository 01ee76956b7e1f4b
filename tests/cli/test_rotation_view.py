"""Golden cases: `cases/rotation/<name>.in.yaml` is a state, `.out.txt` what people see.

`HEDDLE_REGENERATE=1` writes them anew.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from cli.rotation import view

CASES = Path(__file__).parent / "cases" / "rotation"
NOW = datetime(2026, 6, 1, 12, 1, 40, tzinfo=UTC)


def names() -> list[str]:
    return sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("name", names())
def test_case(name: str) -> None:
    body = yaml.safe_load((CASES / f"{name}.in.yaml").read_text())
    text = f"{view.line(body)}\n---\n{view.status(body, NOW)}\n"
    golden = CASES / f"{name}.out.txt"
    if os.environ.get("HEDDLE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text(), "HEDDLE_REGENERATE=1 writes it anew"


def test_no_case_is_left_over() -> None:
    assert sorted(path.name.removesuffix(".out.txt") for path in CASES.glob("*.out.txt")) == names()


def test_bars_never_leave_their_frame() -> None:
    for have, of in ((0, 0), (0, 5), (5, 5), (3, 5)):
        item = view.Progress("renew", "now", have, of, "certificates")
        drawn = view.bar(item).split()[1]
        assert len(drawn) == view.BAR_CELLS
        assert drawn.count("#") == (round(have / of * view.BAR_CELLS) if of else 0)
