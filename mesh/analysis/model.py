"""The words of the analysis: what can be found (`Code`), and what was found (`Finding`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from mesh.istio.base import IstioObject
from mesh.problems import FieldProblem, Path, Step, show


class Severity(StrEnum):
    """ERROR: requests fail, or the object does nothing at all. WARNING: it is probably not what was meant."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Fix:
    """The way out, where it is mechanical and changes nothing else: what stands at `path` is taken out, or gets the
    name `rename`."""

    path: Path
    rename: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """One thing that can be found. A number is never given to something else.

    `means`: a sentence for docs/analysis.md. `fix`: the way out, in general. `istio`: istioctl's codes for the same.
    """

    number: str
    name: str
    severity: Severity
    means: str
    fix: str
    istio: tuple[str, ...] = ()

    def on(
        self, thing: Any, *path: Step, says: str, hint: str, value: object = None, fix: Fix | None = None
    ) -> Finding:
        """The finding on `thing` (an IstioObject, or a value of mesh.objects) at the field `path`."""
        shown = "" if value is None else show(value)
        problem = FieldProblem(path, says, hint, shown, warning=self.severity is not Severity.ERROR)
        return Finding(self, subject_of(thing), problem, fix)


class Subject(NamedTuple):
    """The object that a finding is about; `namespace` is empty for one that is in none."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def subject_of(thing: Any) -> Subject:
    """How `thing` is called in findings."""
    if isinstance(thing, IstioObject):
        return Subject(*thing.key)
    return Subject(type(thing).__name__, thing.meta.namespace, thing.meta.name)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: where (`about`, `problem.path`), what, and the way out (`problem.hint`)."""

    code: Code
    about: Subject
    problem: FieldProblem
    fix: Fix | None = None

    @property
    def severity(self) -> Severity:
        return self.code.severity

    def as_json(self) -> dict[str, str]:
        """`code`, `severity`, `object`, `message`, and `field`, `value`, `hint` where there are any."""
        head = {"code": self.code.number, "severity": str(self.severity), "object": str(self.about)}
        return head | {key: text for key, text in self.problem.as_json().items() if text}

    def __str__(self) -> str:
        return f"{self.about}: {self.problem} [{self.code.number}]"
