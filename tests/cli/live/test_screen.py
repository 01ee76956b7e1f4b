"""Golden cases: `cases/<name>.in.json` is a picture, `.out.txt` what a terminal shows.

`HEDDLE_REGENERATE=1` writes them anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli.live.screen import screen

CASES = Path(__file__).parent / "cases"


def names() -> list[str]:
    return sorted(path.name.removesuffix(".in.json") for path in CASES.glob("*.in.json"))


@pytest.mark.parametrize("name", names())
def test_case(name: str) -> None:
    text = screen(json.loads((CASES / f"{name}.in.json").read_text())) + "\n"
    golden = CASES / f"{name}.out.txt"
    if os.environ.get("HEDDLE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text(), "HEDDLE_REGENERATE=1 writes it anew"


def test_no_case_is_left_over() -> None:
    assert sorted(path.name.removesuffix(".out.txt") for path in CASES.glob("*.out.txt")) == names() != []
