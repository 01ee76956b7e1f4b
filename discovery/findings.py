"""What people should know about what they wrote: the entries of `problems` in `GET /v1/status`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from discovery.plan.origins import Origin, Problem
from mesh.errors import HeddleError
from mesh.problems import FieldProblem, ObjectErrors


class Severity(StrEnum):
    """ERROR: what was asked for is not done. WARNING: it is done, though perhaps not what was meant."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One problem of one object. `effect` says what holds instead."""

    kind: str
    namespace: str
    name: str
    field: str
    message: str
    hint: str = ""
    effect: str = ""
    severity: Severity = Severity.ERROR

    def as_json(self) -> dict[str, str]:
        """Every field, and `object`: the whole name for people."""
        names = ("severity", "kind", "namespace", "name", "field", "message", "hint", "effect")
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return {"object": f"{self.kind} {where}".strip(), **{name: str(getattr(self, name)) for name in names}}


def of_plan(problem: Problem) -> Finding:
    """A problem that planning found."""
    origin: Origin = problem.origin
    return Finding(origin.kind, origin.namespace, origin.name, origin.field, problem.message, problem.hint)


def of_error(kind: str, namespace: str, name: str, error: Exception, effect: str) -> tuple[Finding, ...]:
    """What made an object unusable: every field of an ObjectErrors, or the one thing that another error says."""
    if isinstance(error, ObjectErrors):
        return tuple(of_field(kind, namespace, name, each, effect=effect) for each in error.problems)
    if isinstance(error, HeddleError):
        return (Finding(kind, namespace, name, error.field or "", error.message, error.hint or "", effect),)
    said = f"the object is not as the API describes it ({type(error).__name__}: {error})"
    return (Finding(kind, namespace, name, "", said, "", effect),)


def of_field(
    kind: str,
    namespace: str,
    name: str,
    problem: FieldProblem,
    *,
    effect: str = "",
    severity: Severity = Severity.ERROR,
) -> Finding:
    """A problem (or a warning) of one field."""
    return Finding(kind, namespace, name, problem.field, problem.message, problem.hint, effect, severity)
