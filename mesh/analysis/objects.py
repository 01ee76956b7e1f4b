"""What is wrong with, or doubtful about, an object by itself: what its model says, as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mesh.analysis.model import Code, Finding, Severity, Subject
from mesh.problems import FieldProblem

UNREADABLE = Code(
    "HDL0001",
    "unreadable",
    Severity.ERROR,
    "Text that is no Kubernetes object: broken YAML, or an object without apiVersion, kind or name.",
    "Correct it at the line that is named.",
)
INVALID = Code(
    "HDL0002",
    "invalid-object",
    Severity.ERROR,
    "A field that is not as its kind defines it. The API server refuses the object.",
    "Correct the field; docs/reference/ has all of them.",
    ("IST0106", "IST0122", "IST0149"),
)
DOUBTFUL = Code(
    "HDL0003",
    "doubtful-field",
    Severity.WARNING,
    "A field that is allowed and probably not meant, or not acted upon.",
    "See the message.",
    ("IST0002", "IST0133", "IST0152", "IST0153", "IST0154"),
)
NOT_IN_FORCE = Code(
    "HDL0004",
    "not-in-force",
    Severity.WARNING,
    "An object's status says that it is not in force as it is written, such as that proxies have refused it.",
    "See the message, and `heddle status`.",
    ("IST0171",),
)
CODES = (UNREADABLE, INVALID, DOUBTFUL, NOT_IN_FORCE)
_SAID_OTHERWISE = "Accepted"
"""The condition that says what the object itself is found to be, which has codes of its own."""


def of_warning(about: Subject, problem: FieldProblem) -> Finding:
    """What a kind's model, or this release, has to say about a field."""
    return Finding(DOUBTFUL, about, problem)


def of_status(about: Subject, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """What is False among the conditions of the object as it is now. Heddle writes some (docs/adr/0141), others may.

    Source: Kubernetes' API conventions ("Typical status properties").
    """
    generation = (raw.get("metadata") or {}).get("generation", 0)
    for condition in (raw.get("status") or {}).get("conditions") or ():
        earlier = condition.get("observedGeneration", generation) != generation
        if condition.get("status") != "False" or condition.get("type") == _SAID_OTHERWISE or earlier:
            continue
        says = f"{condition.get('type')} is False: {condition.get('message') or condition.get('reason') or 'no reason'}"
        hint = "heddle status says it proxy by proxy"
        yield Finding(NOT_IN_FORCE, about, FieldProblem(("status", "conditions"), says, hint, warning=True))
