"""Golden cases: manifests in, the interesting parts of one proxy's plan out.

`cases/<feature>.in.yaml` begins with a document `{for: namespace/pod, show: [part, ...]}`, a part being a path such as
`route_tables/9080` (elements by name) or `problems`; `cases/<feature>.out.yaml` holds those parts, without fields that
have their default. `HEDDLE_REGENERATE=1` writes them anew.
"""

from __future__ import annotations

import dataclasses
import os
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery.plan.memo import Scopes
from discovery.plan.model import Plan, TextMatch
from discovery.plan.origins import Origin
from discovery.plan.plan import plan, proxy_of
from mesh.identity import Identity
from mesh.objects import Key
from tests.support.snapshots import snapshot_of

CASES = Path(__file__).parent / "cases"
FEATURES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("feature", FEATURES)
def test_case(feature: str) -> None:
    header, *documents = [d for d in yaml.safe_load_all((CASES / f"{feature}.in.yaml").read_text()) if d]
    snapshot = snapshot_of(documents)
    made = plan(snapshot, proxy_of(snapshot, Key(*header["for"].split("/"))), Scopes())
    shown = {part: _part(made, part) for part in header["show"]}
    expected = CASES / f"{feature}.out.yaml"
    if os.environ.get("HEDDLE_REGENERATE"):
        expected.write_text(yaml.safe_dump(shown, sort_keys=False, width=120))
    assert shown == yaml.safe_load(expected.read_text())


def test_no_output_without_input() -> None:
    assert {path.name.removesuffix(".out.yaml") for path in CASES.glob("*.out.yaml")} == set(FEATURES)
    assert len(list(CASES.iterdir())) == 2 * len(FEATURES)


def _part(made: Plan, path: str) -> Any:
    """The part at `path`; `*` shows the names only."""
    value: Any = made
    for step in path.split("/"):
        if step == "*":
            return [element.name for element in value]
        if isinstance(value, tuple):
            value = next((e for e in value if step in (getattr(e, "name", None), str(getattr(e, "port", "")))), None)
        else:
            value = getattr(value, step)
    return _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case Identity():
            return str(value)
        case Origin():
            return f"{value.kind} {value.namespace}/{value.name}" + (f" {value.field}" if value.field else "")
        case TextMatch():
            flags = [name for name in ("ignore_case", "invert") if getattr(value, name)]
            return " ".join([value.kind.value, value.value, *flags]).strip()
        case tuple():
            return [_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    shown = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if item != field.default:
            shown[field.name] = _plain(item)
    return shown
