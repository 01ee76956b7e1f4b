"""What is wrong with, or doubtful about, an object by itself: what its model says, as findings."""

from __future__ import annotations

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
    ("IST0106", "IST0122"),
)
DOUBTFUL = Code(
    "HDL0003",
    "doubtful-field",
    Severity.WARNING,
    "A field that is allowed and probably not meant, or not acted upon.",
    "See the message.",
    ("IST0002", "IST0133", "IST0152", "IST0153", "IST0154"),
)
CODES = (UNREADABLE, INVALID, DOUBTFUL)


def of_warning(about: Subject, problem: FieldProblem) -> Finding:
    """What a kind's model, or this release, has to say about a field."""
    return Finding(DOUBTFUL, about, problem)
