"""Golden cases: `cases/<feature>.in.yaml` is a pod, `.out.yaml` the injected one. HEDDLE_REGENERATE=1 writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.webhook.judge import check_like_kubernetes
from webhook.config import InjectionConfig
from webhook.inject import inject

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    injected = inject(read(CASES / f"{name}.in.yaml"), InjectionConfig())
    check_like_kubernetes(injected)
    expected = CASES / f"{name}.out.yaml"
    if os.environ.get("HEDDLE_REGENERATE"):
        expected.write_text(yaml.safe_dump(injected, sort_keys=False, width=120))
    assert injected == read(expected)


def test_every_file_belongs_to_a_case() -> None:
    expected = {f"{name}.{part}.yaml" for name in NAMES for part in ("in", "out")}
    assert {path.name for path in CASES.iterdir()} == expected
