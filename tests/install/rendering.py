"""What the tests of rendering share."""

from __future__ import annotations

import difflib
from typing import Any

from install.printing import as_yaml
from install.render import Rendered, render
from install.request import request

CRD = "CustomResourceDefinition"


def without_crds(rendered: Rendered) -> list[dict[str, Any]]:
    return [raw for raw in rendered.objects if raw["kind"] != CRD]


def profile_objects(profile: str) -> list[dict[str, Any]]:
    return without_crds(render(request((), profile=profile).spec))


def difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """How the objects differ, as a diff of their YAML, each under its name."""
    old, new = _named(before), _named(after)
    lines: list[str] = []
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            lines.append(f"- {name}")
        elif name not in old:
            lines += [f"+ {name}", *(f"+   {line}" for line in new[name])]
        elif old[name] != new[name]:
            diff = list(difflib.unified_diff(old[name], new[name], lineterm="", n=2))[2:]
            # Without line numbers, which change with every line that a file gains.
            lines += [f"~ {name}", *("    @@" if line.startswith("@@") else f"    {line}".rstrip() for line in diff)]
    return "\n".join(lines)


def _named(objects: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What a role allows is not for these cases to say; tests of mesh/rbac.py do."""
    shown = [{key: value for key, value in raw.items() if key != "rules"} for raw in objects]
    return {f"{raw['kind']} {raw['metadata']['name']}": as_yaml([raw]).splitlines() for raw in shown}
