"""Golden cases: manifests and requests in, what becomes of each request out.

`cases/<feature>.in.yaml` begins with a document `{ask: [REQUEST, ...]}`, a request being `{from: namespace/pod, to:
HOST:PORT}` and whatever else of `Request` it sets. `cases/<feature>.out.yaml` holds an answer for each, objects as
`Kind namespace/name field`. `HEDDLE_REGENERATE=1` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery.explain.explain import explain
from discovery.explain.model import Branch, Explanation, Request, Step
from discovery.plan.origins import Origin
from mesh.objects import Key
from tests.support.snapshots import snapshot_of

CASES = Path(__file__).parent / "cases"
FEATURES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("feature", FEATURES)
def test_case(feature: str) -> None:
    header, *documents = [d for d in yaml.safe_load_all((CASES / f"{feature}.in.yaml").read_text()) if d]
    snapshot = snapshot_of(documents)
    shown = [{"ask": ask, **_shown(explain(snapshot, _request(ask)))} for ask in header["ask"]]
    expected = CASES / f"{feature}.out.yaml"
    if os.environ.get("HEDDLE_REGENERATE"):
        expected.write_text(yaml.safe_dump(shown, sort_keys=False, width=120))
    assert shown == yaml.safe_load(expected.read_text())


def test_no_output_without_input() -> None:
    assert {path.name.removesuffix(".out.yaml") for path in CASES.glob("*.out.yaml")} == set(FEATURES)
    assert len(list(CASES.iterdir())) == 2 * len(FEATURES)


def _request(ask: dict[str, Any]) -> Request:
    fields = dict(ask)
    host, _, port = fields.pop("to").rpartition(":")
    headers = tuple(sorted(fields.pop("headers", {}).items()))
    return Request(Key(*fields.pop("from").split("/")), host, int(port), headers=headers, **fields)


def _shown(explained: Explanation) -> dict[str, Any]:
    return {
        "steps": [_step(step) for step in explained.steps],
        **({"passed over": _last(explained.passed_over)} if explained.passed_over else {}),
        **({"notes": list(explained.notes)} if explained.notes else {}),
        "then": [_branch(branch) for branch in explained.branches],
    }


def _last(steps: tuple[Step, ...]) -> list[str]:
    """The last two, and how many stand before them."""
    more = [f"{len(steps) - 2} more"] if len(steps) > 2 else []
    return [*more, *(_step(step) for step in steps[-2:])]


def _branch(branch: Branch) -> dict[str, Any]:
    outcome = branch.outcome
    shown: dict[str, Any] = {f"{branch.share * 100:.4g} %": f"{outcome.result.value} {outcome.status or ''}".strip()}
    more: dict[str, Any] = {
        "because": outcome.reason,
        "by": _origins(outcome.origins),
        "hint": outcome.hint,
        "workloads": " ".join(branch.workloads),
        "transport": branch.transport.value if branch.transport else "",
        "steps": [_step(step) for step in branch.steps],
    }
    return shown | {name: value for name, value in more.items() if value}


def _step(step: Step) -> str:
    by = _origins(step.origins)
    return f"{step.part.value}: {step.name + ': ' if step.name else ''}{step.says}" + (f" [{by}]" if by else "")


def _origins(origins: Iterable[Origin]) -> str:
    return ", ".join(f"{each.kind} {each.namespace}/{each.name} {each.field}".strip() for each in origins)
