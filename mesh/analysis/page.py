"""docs/analysis.md, from the table of checks. `python -m mesh.analysis.page` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mesh.analysis.istioctl import covered
from mesh.analysis.registry import CHECKS, SUPPRESS, THEMES, Check

FILE = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"
_HEAD = f"""# What the analysis finds

Written from `mesh/analysis/` by `python -m mesh.analysis.page`; do not edit.

Objects that are wrong are refused: by the CRD, by the validating webhook, by `heddle validate`, each with every error
at once. What is legal and doubtful has a code here. At admission it is a warning, which `kubectl` prints and which
never blocks. An error means that requests fail or that the object does nothing.

`heddle analyze` looks at all objects of a mesh, of some files, or of files as if they were applied to a mesh. With
`--fix` it corrects files where the way out is mechanical: HDL0202, HDL0503, and HDL0504 where a name is misspelled.

An object's annotation `{SUPPRESS}: HDL0104,IST0127` keeps codes (Heddle's or istioctl's) quiet for it, `*` all of them;
`--suppress HDL0104` does so for one run, `--suppress "IST0101=Gateway infra/*"` for some objects.
"""


def page() -> str:
    return "\n".join((_HEAD, *_themes(), *_istioctl(), *_kinds()))


def _themes() -> Iterator[str]:
    for title, codes in THEMES:
        yield f"## {title}\n"
        yield "| Code | Name | Severity | What it means | The way out | istioctl |"
        yield "|---|---|---|---|---|---|"
        for code in codes:
            istio = ", ".join(code.istio) or "-"
            yield f"| {code.number} | `{code.name}` | {code.severity} | {code.means} | {code.fix} | {istio} |"
        yield ""


def _istioctl() -> Iterator[str]:
    yield "## The messages of `istioctl analyze`\n"
    yield "| Message | Name | Here |"
    yield "|---|---|---|"
    for code, name, here in covered():
        yield f"| {code} | {name} | {here} |"
    yield ""


def _kinds() -> Iterator[str]:
    kinds: dict[str, list[Check]] = {}
    for check in CHECKS:
        for kind in check.kinds:
            kinds.setdefault(kind, []).append(check)
    yield "## Which kinds are looked at\n"
    yield "| Kind | Checks | At admission |"
    yield "|---|---|---|"
    for kind in sorted(kinds):
        asked = sum(check.at_admission for check in kinds[kind])
        yield f"| {kind} | {len(kinds[kind])} | {asked} |"
    yield ""


if __name__ == "__main__":
    FILE.write_text(page())
