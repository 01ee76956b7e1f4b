"""What is wrong with an object, field by field, in the spelling of its manifest.

A `FieldProblem` is a value: rules yield them, `ObjectErrors` carries all of one object's at once, `heddle validate`,
the validating webhook and `heddle status` print them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mesh.errors import InvalidInput

Step = str | int
Path = tuple[Step, ...]
"""The way to a field: keys and indexes, such as `("spec", "http", 0, "route", 1, "weight")`."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_LONGEST_VALUE = 80


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing that is wrong, or (`warning`) allowed but probably not what was meant.

    `value` is what the field holds, as text (empty when there is nothing to show); `hint` is the way out.
    """

    path: Path
    message: str
    hint: str = ""
    value: str = ""
    warning: bool = False

    @property
    def field(self) -> str:
        """The path as written in documentation: `spec.http[0].route[1].weight`."""
        return spell(self.path)

    def under(self, *parents: Step) -> FieldProblem:
        """The same problem, seen from further up."""
        return replace(self, path=(*parents, *self.path))

    def as_json(self) -> dict[str, str]:
        """`{"field", "message"}` plus `hint` and `value` where there are any."""
        body = {"field": self.field, "message": self.message}
        if self.value:
            body["value"] = self.value
        if self.hint:
            body["hint"] = self.hint
        return body

    def __str__(self) -> str:
        where = f"{self.field}: " if self.path else ""
        way_out = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{way_out}"


class ObjectErrors(InvalidInput):
    """Everything that is wrong with one object; `about` names it (`VirtualService default/reviews`)."""

    def __init__(self, about: str, problems: Iterable[FieldProblem]) -> None:
        self.about = about
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(
            f"{about}: " + "; ".join(f"{problem.field}: {problem.message}" for problem in self.problems),
            field=first.field,
            hint=first.hint or None,
        )

    def __str__(self) -> str:
        return f"{self.about}: " + "; ".join(str(problem) for problem in self.problems)


def spell(path: Path) -> str:
    """`("spec", "labels", "a.b/c")` -> `spec.labels["a.b/c"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not _PLAIN_KEY.match(step):
            text += f'["{step}"]'
        else:
            text += f".{step}" if text else step
    return text


def show(value: object) -> str:
    """`value` in the words of a manifest, for an error message; never longer than a line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, int) and value.bit_length() > _LONGEST_VALUE * 3:
        return "a huge number"
    text = repr(value[:_LONGEST_VALUE] if isinstance(value, str) else value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
