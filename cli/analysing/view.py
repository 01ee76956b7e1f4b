"""Findings for people, for programs, and as SARIF for code review. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cli.analysing.found import Placed, codes_of
from mesh.analysis.model import Code, Severity

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
PAGE = "docs/analysis.md"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def text(found: Sequence[Placed], looked_at: int) -> str:
    """A line for each, as compilers write them, and a summary."""
    lines = [line(each) for each in found]
    counts = [_count(sum(each.finding.severity is severity for each in found), severity) for severity in Severity]
    objects = "1 object" if looked_at == 1 else f"{looked_at} objects"
    return "\n".join([*lines, f"{objects} looked at: {', '.join(counts)}"])


def _count(number: int, severity: Severity) -> str:
    return f"{number} {severity}{'' if number == 1 or severity is Severity.INFO else 's'}"


def as_json(found: Iterable[Placed], looked_at: int) -> dict[str, Any]:
    return {"objects": looked_at, "findings": [_finding_json(each) for each in found]}


def sarif(found: Sequence[Placed], version: str) -> dict[str, Any]:
    """SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/): files by their names as given."""
    codes = codes_of(found)
    driver = {"name": "heddle", "version": version, "rules": [_rule(code) for code in codes]}
    index = {code.number: number for number, code in enumerate(codes)}
    results = [_result(each, index[each.finding.code.number]) for each in found]
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def line(each: Placed) -> str:
    """`FILE:LINE: SEVERITY CODE: OBJECT: FIELD: MESSAGE (HINT)`."""
    place = f"{each.file}:{each.line}: " if each.file else ""
    about = str(each.finding.about).strip()
    who = f"{about}: " if about else ""
    return f"{place}{each.finding.severity} {each.finding.code.number}: {who}{each.finding.problem}"


def _finding_json(each: Placed) -> dict[str, Any]:
    place: dict[str, Any] = {"file": each.file, "line": each.line} if each.file else {}
    names = {"name": each.finding.code.name, "istio": list(each.finding.code.istio)}
    return {**each.finding.as_json(), **names, **place}


def _rule(code: Code) -> dict[str, Any]:
    return {
        "id": code.number,
        "name": code.name,
        "shortDescription": {"text": code.means},
        "help": {"text": code.fix},
        "defaultConfiguration": {"level": _LEVELS[code.severity]},
    }


def _result(each: Placed, rule: int) -> dict[str, Any]:
    about, problem = str(each.finding.about).strip(), each.finding.problem
    said = f"{about}: {problem}" if about else str(problem)
    logical = {"fullyQualifiedName": f"{about} {problem.field}".strip(), "kind": "object"}
    location: dict[str, Any] = {"logicalLocations": [logical]} if about else {}
    if each.file:
        region = {"startLine": max(1, each.line)}
        location["physicalLocation"] = {"artifactLocation": {"uri": each.file}, "region": region}
    return {
        "ruleId": each.finding.code.number,
        "ruleIndex": rule,
        "level": _LEVELS[each.finding.severity],
        "message": {"text": said},
        "locations": [location],
    }
