"""Golden cases: `cases/<feature>.in.yaml` is a pod, `.out.yaml` the injected one. HEDDLE_REGENERATE=1 writes them.

`.config.yaml`, where there is one, is the data of ConfigMap istio-sidecar-injector.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.webhook.judge import check_like_kubernetes
from webhook.config import InjectionConfig
from webhook.inject import inject
from webhook.injector import injector_settings

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    settings = CASES / f"{name}.config.yaml"
    config = InjectionConfig(injector=injector_settings(read(settings) if settings.exists() else {}))
    injected = inject(read(CASES / f"{name}.in.yaml"), config)
    check_like_kubernetes(injected)
    assert inject(injected, config) == injected
    expected = CASES / f"{name}.out.yaml"
    if os.environ.get("HEDDLE_REGENERATE"):
        expected.write_text(yaml.safe_dump(injected, sort_keys=False, width=120))
    assert injected == read(expected)


def test_every_file_belongs_to_a_case() -> None:
    expected = {f"{name}.{part}.yaml" for name in NAMES for part in ("in", "out")}
    optional = {f"{name}.config.yaml" for name in NAMES}
    assert {path.name for path in CASES.iterdir()} - optional == expected
