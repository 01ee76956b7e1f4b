"""Golden cases: manifests, and others laid over them, in; what changes for which proxies out.

`cases/<feature>.in.yaml` holds a stream of manifests, then a document `{apply: true}` (or `{delete: true}`), then those
that are applied (or deleted). `cases/<feature>.out.yaml` holds the differences. `HEDDLE_REGENERATE=1` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.mesh_objects import builder_of, events_of
from discovery.compare.model import Change
from discovery.compare.plans import differences
from local.offline import completed

CASES = Path(__file__).parent / "cases"
FEATURES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("feature", FEATURES)
def test_case(feature: str) -> None:
    documents = [d for d in yaml.safe_load_all((CASES / f"{feature}.in.yaml").read_text()) if d]
    at = next(number for number, document in enumerate(documents) if "kind" not in document)
    base, others = documents[:at], documents[at + 1 :]
    named = {(raw["kind"], raw["metadata"]["name"]) for raw in others}
    kept = [raw for raw in base if (raw["kind"], raw["metadata"]["name"]) not in named]
    builder = builder_of(completed(base))
    old = builder.build()
    for event in events_of(completed([*kept, *([] if documents[at].get("delete") else others)])):
        builder.apply(event)
    new = builder.build()
    shown = [
        {"proxies": " ".join(map(str, found.proxies)), "changes": [_shown(change) for change in found.changes]}
        for found in differences(old, new)
    ]
    expected = CASES / f"{feature}.out.yaml"
    if os.environ.get("HEDDLE_REGENERATE"):
        expected.write_text(yaml.safe_dump(shown, sort_keys=False, width=120))
    assert shown == yaml.safe_load(expected.read_text())
    assert not differences(old, old)
    assert not differences(
        new, builder_of(completed([*kept, *([] if documents[at].get("delete") else others)])).build()
    )


def test_no_output_without_input() -> None:
    assert {path.name.removesuffix(".out.yaml") for path in CASES.glob("*.out.yaml")} == set(FEATURES)
    assert len(list(CASES.iterdir())) == 2 * len(FEATURES)


def _shown(change: Change) -> dict[str, Any]:
    words = " ".join(word for word in (change.part, change.name, change.what) if word)
    by = ", ".join(f"{o.kind} {o.namespace}/{o.name} {o.field}".strip() for o in change.origins)
    return {words: f"{change.before or '(new)'} -> {change.after or '(gone)'}", **({"by": by} if by else {})}
