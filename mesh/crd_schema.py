"""A model's OpenAPI v3 schema as the API server wants it in a CRD: structural, every field typed, no references.

Types, bounds and required fields come from the model's own annotations, texts from beside its fields, further keywords
and CEL rules from its `Schema` markers and its `cel`. Rules of structural schemas:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from mesh.field_docs import class_doc, field_docs
from mesh.istio.base import Model
from mesh.istio.schema import Cel, Schema

Json = dict[str, Any]
RULES = "x-kubernetes-validations"
ANYTHING = "x-kubernetes-preserve-unknown-fields"
_INT32 = (-(2**31), 2**31 - 1)
_SCALARS: Mapping[type, Json] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number", "format": "double"},
}


def schema_of(model: type[Model]) -> Json:
    """The schema of one message."""
    docs = field_docs(model)
    properties: Json = {}
    required: list[str] = []
    for name, info in model.model_fields.items():
        alias = info.alias or name
        properties[alias] = _described(docs.get(name, ""), _typed(info.annotation, info.metadata))
        if info.is_required():
            required.append(alias)
    found: Json = {"type": "object", "properties": properties}
    required.extend(model.required)
    if required:
        found["required"] = required
    if model.cel:
        found[RULES] = [rule.as_json() for rule in model.cel]
    return _described(class_doc(model), found)


def _described(text: str, schema: Json) -> Json:
    """`schema` with the text first; what is said of a field says more than what is said of its type."""
    return (
        {"description": text, **{key: value for key, value in schema.items() if key != "description"}}
        if text
        else schema
    )


def _typed(annotation: Any, metadata: Iterable[Any] = ()) -> Json:
    """The schema of a field's type; `metadata` is what pydantic has taken off the annotation."""
    marks = list(_flat(metadata))
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        marks = [*_flat(inner), *marks]
    return _marked(_plain(annotation), marks)


def _plain(annotation: Any) -> Json:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not types.NoneType)
        schema = _typed(inner)
        # As in Istio's CRDs: null is a value of protobuf's wrapped scalars, and of nothing else.
        return {**schema, "nullable": True} if schema["type"] in ("integer", "number", "boolean") else schema
    if origin is tuple:
        return {"type": "array", "items": _typed(arguments[0])}
    if origin is not None and issubclass(origin, Mapping):
        if arguments[1] is Any:
            return {"type": "object", ANYTHING: True}
        return {"type": "object", "additionalProperties": _typed(arguments[1])}
    if issubclass(annotation, Model):
        return schema_of(annotation)
    if issubclass(annotation, StrEnum):
        return {"type": "string", "enum": [str(member) for member in annotation]}
    return dict(_SCALARS[annotation])


def _marked(schema: Json, marks: list[Any]) -> Json:
    rules: list[Cel] = []
    for mark in marks:
        if isinstance(mark, annotated_types.Ge):
            schema["minimum"] = mark.ge
        elif isinstance(mark, annotated_types.Le):
            schema["maximum"] = mark.le
        elif isinstance(mark, Schema):
            if mark.keywords.get("type") == "string":
                schema.pop("format", None)
            schema |= mark.keywords
            rules.extend(mark.cel)
    if (schema.get("minimum"), schema.get("maximum")) == _INT32:
        del schema["minimum"], schema["maximum"]
        schema["format"] = "int32"
    if rules:
        schema[RULES] = [*schema.get(RULES, ()), *(rule.as_json() for rule in rules)]
    return schema


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    """The marks, with those that stand within a `Field(...)`."""
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from mark.metadata
        else:
            yield mark
