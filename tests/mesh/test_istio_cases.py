"""Golden cases of `heddle validate`: `cases/validation/<name>.in.yaml` gives `<name>.out.txt`.

`HEDDLE_REGENERATE=1` writes the out files anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.checks import check_documents
from mesh.manifest import read_manifest

CASES = Path(__file__).parent / "cases" / "validation"
NAMES = sorted(file.name.removesuffix(".in.yaml") for file in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_the_golden_one(name: str) -> None:
    manifest = read_manifest((CASES / f"{name}.in.yaml").read_text(), f"{name}.in.yaml")
    report = check_documents(manifest.documents, manifest.problems)
    lines = [*(f"error: {each}" for each in report.errors), *(f"warning: {each}" for each in report.warnings)]
    text = "\n".join([*lines, report.summary(), ""])
    golden = CASES / f"{name}.out.txt"
    if os.environ.get("HEDDLE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text(), "HEDDLE_REGENERATE=1 writes it anew"


def test_every_file_is_part_of_a_case() -> None:
    expected = {f"{name}{end}" for name in NAMES for end in (".in.yaml", ".out.txt")}
    assert {file.name for file in CASES.iterdir()} == expected
