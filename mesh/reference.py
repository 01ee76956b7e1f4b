"""The reference pages of the kinds: docs/reference/<kind>.md, written by `python -m mesh.reference`.

What a page says comes from the models alone: fields, types, texts beside the fields, and the `planned` marks.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from mesh import crd
from mesh.field_docs import class_doc, field_docs
from mesh.istio.base import Model
from mesh.istio.schema import Schema
from mesh.kinds import Kind

DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"
INDEX = "kinds.md"


def pages() -> Iterator[tuple[str, str]]:
    """Name and text of every page."""
    kinds = crd.defined()
    yield INDEX, _index(kinds)
    for kind in kinds:
        yield f"{kind.kind.lower()}.md", _page(kind)


def _index(kinds: tuple[Kind, ...]) -> str:
    rows = [
        f"| [{kind.kind}]({kind.kind.lower()}.md) | {kind.group} | {', '.join(kind.versions)} | "
        f"{crd.stored_version(kind)} | {_acted_upon(kind)} |"
        for kind in kinds
    ]
    return _joined(
        "# Kinds",
        "",
        _HEADER,
        "",
        "The kinds that Heddle defines by a CRD: Istio's, and its own. All versions of a kind have one schema, so",
        "that an object written in one reads in every other. What Heddle reads and does not act upon yet is named by",
        "`heddle validate` and `heddle local up`.",
        "",
        "| Kind | Group | Versions | Stored as | Acted upon |",
        "|---|---|---|---|---|",
        *rows,
    )


def _acted_upon(kind: Kind) -> str:
    if not kind.of_istio:
        return "written by the ca"
    return "not yet: read and checked, without effect" if kind.planned else "yes"


def _page(kind: Kind) -> str:
    assert kind.model is not None
    lines = [f"# {kind.kind}", "", _HEADER, ""]
    lines += [f"`{kind.group}/{kind.versions[0]}`; {_also(kind)}. {class_doc(kind.model)}".rstrip(), ""]
    if kind.planned:
        lines += ["**Heddle does not act upon this kind yet.** Objects are read and checked, and have no effect.", ""]
    acted_upon = _messages(kind.model, leave_out_planned=True)
    for message in _messages(kind.model):
        lines += _table("spec" if message is kind.model else message.__name__, message, kind, message in acted_upon)
    for message in _messages(kind.status) if kind.status else ():
        lines += _table("status" if message is kind.status else message.__name__, message, kind, True)
    return _joined(*lines).rstrip("\n") + "\n"


def _also(kind: Kind) -> str:
    others = ", ".join(f"`{version}`" for version in kind.versions[1:])
    return f"also {others}, with the same fields" if others else "there is no other version"


def _table(title: str, message: type[Model], kind: Kind, acted_upon: bool) -> list[str]:
    """`acted_upon`: whether any field that is acted upon leads to the message."""
    docs = field_docs(message)
    text = class_doc(message)
    head = [f"## {title}", "", *([text, ""] if text and title != "spec" else [])]
    tells = kind.of_istio and not kind.planned
    rows = []
    for name, info in message.model_fields.items():
        needed = info.is_required() or (info.alias or name) in message.required
        meaning = docs[name] + (" **Required.**" if needed else "")
        effect = "yes" if acted_upon and name not in message.planned_fields else "no"
        cells = [
            f"`{info.alias or name}`",
            _type(info.annotation, info.metadata),
            meaning,
            *([effect] if tells else []),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return [
        *head,
        "| Field | Type | Meaning |" + (" Acted upon |" if tells else ""),
        "|---|---|---|" + ("---|" if tells else ""),
        *rows,
        "",
    ]


def _messages(model: type[Model], *, leave_out_planned: bool = False) -> list[type[Model]]:
    """`model` and what its fields lead to, each once, in the order in which a reader meets them."""
    found = [model]
    for message in found:  # which grows meanwhile
        for name, info in message.model_fields.items():
            if not (leave_out_planned and name in message.planned_fields):
                found.extend(each for each in _models_in(info.annotation) if each not in found)
    return found


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for inner in get_args(annotation):
        if inner is not Ellipsis:
            yield from _models_in(inner)


def _type(annotation: Any, metadata: list[Any]) -> str:
    """The type in a reader's words, with links to messages on the same page."""
    marks = [mark for mark in metadata if isinstance(mark, Schema)]
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        marks = [*(mark for mark in inner if isinstance(mark, Schema)), *marks]
    if annotation is float and any(mark.keywords.get("type") == "string" for mark in marks):
        return "duration"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _type(next(each for each in arguments if each is not types.NoneType), [])
    if origin is tuple:
        return f"list of {_type(arguments[0], [])}"
    if origin is not None and issubclass(origin, Mapping):
        return "any mapping" if arguments[1] is Any else f"mapping of names to {_type(arguments[1], [])}"
    if issubclass(annotation, Model):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if issubclass(annotation, StrEnum):
        return " ".join(f"`{member}`" for member in annotation)
    return {str: "text", bool: "true or false", int: "whole number", float: "number"}[annotation]


def _joined(*lines: str) -> str:
    return "\n".join(lines) + "\n"


_HEADER = "<!-- Written from mesh/istio/ and mesh/heddle/ by `python -m mesh.reference`; do not edit. -->"


def main() -> None:
    for name, text in pages():
        DIRECTORY.joinpath(name).write_text(text)


if __name__ == "__main__":
    main()
