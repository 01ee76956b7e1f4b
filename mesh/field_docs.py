"""What each field of a model means, as written beside it: the text under a field in its class (an attribute docstring).

Python drops these texts when it compiles, so they are read from the source, and only by the generators of CRDs and
reference pages.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache

from mesh.istio.base import Model


@cache
def field_docs(model: type[Model]) -> dict[str, str]:
    """Python name of each field of `model` that has a text -> the text, on one line."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, Model) and each is not Model:
            found |= _own(each)
    return found


def class_doc(model: type[Model]) -> str:
    """The docstring of the model itself, on one line, without the words that it is a spec; "" when it has none."""
    return _line(model.__dict__.get("__doc__") or "").removeprefix("The spec.").lstrip()


def _own(model: type[Model]) -> dict[str, str]:
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[statement.target.id] = _line(after.value.value)
    return found


def _line(text: str) -> str:
    return " ".join(text.split())
