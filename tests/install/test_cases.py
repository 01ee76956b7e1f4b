"""Golden cases: `cases/<name>.in.yaml` is an IstioOperator, `.out.txt` what comes of it.

The out file has the warnings and how the objects differ from those of its profile; or the error. A first line `# --set
a=b` adds assignments. `HEDDLE_REGENERATE=1` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from install.render import render
from install.request import read_operator, request
from mesh.errors import InvalidInput
from mesh.problems import ObjectErrors
from tests.install.rendering import difference, profile_objects, without_crds

CASES = Path(__file__).parent / "cases"
NAMES = sorted(file.name.removesuffix(".in.yaml") for file in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_of_it_is_golden(name: str) -> None:
    text = outcome((CASES / f"{name}.in.yaml").read_text())
    golden = CASES / f"{name}.out.txt"
    if os.environ.get("HEDDLE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text(), "HEDDLE_REGENERATE=1 writes it anew"


def outcome(text: str) -> str:
    assignments = [line.removeprefix("# --set ") for line in text.splitlines() if line.startswith("# --set ")]
    try:
        asked = request([("file.yaml", read_operator(text, "file.yaml"))], assignments)
        objects = without_crds(render(asked.spec))
    except ObjectErrors as error:
        return "".join(f"error: {error.about}: {problem}\n" for problem in error.problems)
    except InvalidInput as error:
        return f"error: {error}\n"
    lines = [f"warning: {warning}" for warning in asked.warnings]
    return "\n".join([*lines, difference(profile_objects(asked.spec.profile), objects), ""]).lstrip("\n")


def test_every_file_is_part_of_a_case() -> None:
    expected = {f"{name}{end}" for name in NAMES for end in (".in.yaml", ".out.txt")}
    assert {file.name for file in CASES.iterdir()} == expected
