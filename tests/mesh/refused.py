"""Objects with one mistake each: `cases/refused/<kind>.in.yaml`, a spec by the name of what is wrong with it.

Read by the tests of the models here and by those of the CRDs in tests/cluster.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mesh.yaml_values import load

CASES = Path(__file__).parent / "cases" / "refused"
KINDS = sorted(file.name.removesuffix(".in.yaml") for file in CASES.glob("*.in.yaml"))


def objects(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and object of each case of a kind (in lower case)."""
    table: Any = load((CASES / f"{kind}.in.yaml").read_text())
    for name, spec in table["cases"].items():
        yield name, {"apiVersion": table["apiVersion"], "kind": table["kind"], "metadata": {"name": name}, "spec": spec}


def check_golden(golden: Path, verdicts: Mapping[str, str]) -> None:
    """The file holds `name: verdict` for each case; HEDDLE_REGENERATE=1 writes it anew."""
    text = "".join(f"{name}: {verdict}\n" for name, verdict in verdicts.items())
    if os.environ.get("HEDDLE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text(), "HEDDLE_REGENERATE=1 writes it anew"
