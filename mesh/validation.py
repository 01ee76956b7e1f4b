"""Offline checks of Istio's kinds: from raw manifests to typed objects, with every error of an object at once.

Two layers: shape (types, unknown and missing fields; by pydantic) and rules (what Istio's documentation says in words;
by the models). When the shape of one field is wrong, that field is left out and the rules are checked on the rest, so
that one run shows everything.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mesh.istio.base import IstioObject, Model, all_rules, camel, problem, unhonoured
from mesh.istio.rules import is_dns_label, is_object_name
from mesh.problems import FieldProblem, ObjectErrors, Path, show

M = TypeVar("M", bound=Model)
DEFAULT_NAMESPACE = "default"
_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA = (
    *("name", "generateName", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "labels"),
    *(
        "annotations",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ),
    *("selfLink", "clusterName"),
)
_MOST_ROUNDS = 8

_EXPECTED = {
    "string_type": ("text is expected", "put it in quotes"),
    "int_type": ("a whole number is expected", "write it without quotes and decimals"),
    "float_type": ("a number is expected", "write it without quotes"),
    "bool_type": ("true or false is expected", "write it without quotes"),
    "tuple_type": ("a list is expected", "begin each item with a dash"),
    "dict_type": ("a mapping is expected", "write key: value"),
    "mapping_type": ("a mapping is expected", "write key: value"),
    "model_type": ("a mapping of fields is expected", "write field: value"),
    "model_attributes_type": ("a mapping of fields is expected", "write field: value"),
}


def checked(model: type[M], raw: object, path: Path = ("spec",)) -> tuple[M | None, tuple[FieldProblem, ...]]:
    """`raw` as a `model` (None when its shape is wrong) and all problems and warnings, in the order of the fields."""
    problems: list[FieldProblem] = []
    left_out: list[Path] = []
    spec: M | None = None
    rest = raw
    for _ in range(_MOST_ROUNDS):
        try:
            spec = model.model_validate(rest, by_alias=True, by_name=False)
            break
        except ValidationError as error:
            details = error.errors(include_url=False)
        except RecursionError:
            return None, (*problems, problem(*path, says="it is nested too deeply", hint="flatten it"))
        fresh = [detail for detail in details if _manifest_path(detail) not in left_out]
        problems.extend(_shape_problem(model, detail).under(*path) for detail in fresh)
        places = [_to_leave_out(detail) for detail in details]
        if not all(places) or not isinstance(rest, Mapping):
            break
        left_out.extend(places)
        rest = _without(rest, places)
    if spec is not None:
        hidden = [(*path, *place) for place in left_out]
        problems.extend(
            found for found in all_rules(spec, path) if not any(_near(found.path, place) for place in hidden)
        )
    return (None if left_out else spec), tuple(problems)


def parse_object(
    kind: str, model: type[M], raw: Mapping[str, Any], namespace: str = DEFAULT_NAMESPACE
) -> tuple[IstioObject[M], tuple[FieldProblem, ...]]:
    """The object in `raw`, and its warnings; ObjectErrors with every problem when it is wrong.

    `namespace` is that of an object whose manifest names none.
    """
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    problems = [*_envelope_problems(raw), *_metadata_problems(metadata)]
    found = raw.get("spec")
    spec, more = checked(model, {} if found is None else found)
    problems.extend(more)
    name, home = metadata.get("name"), metadata.get("namespace") or namespace
    if spec is None or any(not each.warning for each in problems):
        raise ObjectErrors(f"{kind} {home}/{name or '?'}", [each for each in problems if not each.warning])
    istio_object = IstioObject(
        kind=kind,
        namespace=str(home),
        name=str(name),
        spec=spec,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        generation=int(metadata.get("generation") or 0),
        resource_version=str(metadata.get("resourceVersion") or ""),
        uid=str(metadata.get("uid") or ""),
        created=str(metadata.get("creationTimestamp") or ""),
    )
    return istio_object, tuple(each for each in problems if each.warning)


def unhonoured_fields(istio_object: IstioObject[Model]) -> list[str]:
    """Paths of the fields in use that this release reads and does not act upon."""
    return [each.field for each in unhonoured_problems(istio_object.spec)]


def unhonoured_problems(spec: Model) -> tuple[FieldProblem, ...]:
    """The same, as warnings."""
    return tuple(
        FieldProblem(path, "Heddle reads this field and does not act upon it yet", warning=True)
        for path in unhonoured(spec, ("spec",))
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that was probably meant; "" when none is near."""
    choices = list(known)
    if camel(word) in choices:
        return camel(word)
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower().replace("_", ""), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else ""


def _shape_problem(model: type[Model], detail: ErrorDetails) -> FieldProblem:
    kind, loc, value = detail["type"], _manifest_path(detail), detail["input"]
    if kind == "missing":
        return problem(*loc, says="this field is required", hint=f"add {loc[-1]}")
    if kind in ("extra_forbidden", "invalid_key"):
        known = _fields_at(model, loc[:-1])
        meant = nearest(str(loc[-1]), known)
        hint = f"did you mean {meant}?" if meant else f"known here: {', '.join(sorted(known))}"
        return problem(*loc, says=f"there is no field {loc[-1]!r}", hint=hint)
    if kind == "enum":
        allowed = _enum_at(model, loc)
        meant = nearest(value, allowed) if isinstance(value, str) else ""
        says = f"{show(value)} is not one of {', '.join(allowed)}"
        return problem(*loc, says=says, hint=f"did you mean {meant}?" if meant else "use one of them", value=value)
    if kind == "value_error":
        message, _, hint = str(detail["ctx"]["error"]).partition(": ")
        return problem(*loc, says=message, hint=hint, value=value)
    if kind in _EXPECTED:
        expected, hint = _EXPECTED[kind]
        return problem(*loc, says=f"{expected}, and this is {show(value)}", hint=hint, value=value)
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = detail["ctx"].get("ge", detail["ctx"].get("le"))
        side = "less" if kind == "greater_than_equal" else "more"
        return problem(*loc, says=f"{show(value)} is {side} than {bound}", hint="use a number in range", value=value)
    return problem(
        *loc, says=f"{detail['msg']}, and this is {show(value)}", hint="see the kind's reference page", value=value
    )


def _manifest_path(detail: ErrorDetails) -> Path:
    """pydantic's location without its own marker for keys of mappings."""
    return tuple(step for step in detail["loc"] if step != "[key]")


def _to_leave_out(detail: ErrorDetails) -> Path:
    """The nearest field round the error that can be left out; () when there is none."""
    place = _manifest_path(detail)
    if detail["type"] == "missing":
        place = place[:-1]
    while place and isinstance(place[-1], int):
        place = place[:-1]
    return place


def _without(raw: object, places: Iterable[Path]) -> Any:
    """A copy of `raw` without the fields at `places`."""
    here = {place[0] for place in places if len(place) == 1}
    below: dict[str | int, list[Path]] = {}
    for place in places:
        if len(place) > 1 and place[0] not in here:
            below.setdefault(place[0], []).append(place[1:])
    if isinstance(raw, Mapping):
        return {
            key: _without(item, below[_step(key)]) if _step(key) in below else item
            for key, item in raw.items()
            if _step(key) not in here
        }
    if isinstance(raw, list | tuple):
        return [_without(item, below[index]) if index in below else item for index, item in enumerate(raw)]
    return raw


def _step(key: object) -> str:
    """How pydantic spells a key of a mapping in a location."""
    return str(key)


def _near(path: Path, place: Path) -> bool:
    """Whether the rule's finding may be due to what was left out: it is about the same field, or about one above it."""
    return place[: len(path)] == path or path[: len(place)] == place or path == place[:-1]


def _fields_at(model: type[Model], loc: Path) -> list[str]:
    found = _type_at(model, loc)
    if isinstance(found, type) and issubclass(found, Model):
        return [info.alias or name for name, info in found.model_fields.items()]
    return []


def _enum_at(model: type[Model], loc: Path) -> list[str]:
    found = _type_at(model, loc)
    return [str(member) for member in found] if isinstance(found, type) and issubclass(found, StrEnum) else []


def _type_at(model: type[Model], loc: Path) -> Any:
    """The type of the field at `loc`, without Optional and Annotated."""
    found: Any = model
    for step in loc:
        if isinstance(found, type) and issubclass(found, Model):
            found = next((info.annotation for name, info in found.model_fields.items() if info.alias == step), None)
        else:
            arguments = get_args(found)
            found = arguments[0 if isinstance(step, int) else -1] if arguments else None
        found = _plain(found)
    return found


def _plain(annotation: Any) -> Any:
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = next(each for each in get_args(annotation) if each is not type(None))
        elif isinstance(annotation, types.GenericAlias) or origin is not None or isinstance(annotation, type):
            return annotation
        else:
            return None


def _envelope_problems(raw: Mapping[str, Any]) -> Iterator[FieldProblem]:
    for key in raw:
        if key not in _TOP_LEVEL:
            meant = nearest(str(key), _TOP_LEVEL)
            hint = f"did you mean {meant}?" if meant else f"known here: {', '.join(_TOP_LEVEL)}"
            yield problem(str(key), says=f"there is no field {str(key)!r}", hint=hint)
    metadata = raw.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        yield problem("metadata", says=f"a mapping is expected, and this is {show(metadata)}", hint="add metadata.name")


def _metadata_problems(metadata: Mapping[str, Any]) -> Iterator[FieldProblem]:
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not name:
        yield problem("metadata", "name", says="the object has no name", hint="add metadata.name")
    elif not isinstance(name, str) or not is_object_name(name):
        hint = "use lower-case letters, digits, dashes and dots"
        yield problem("metadata", "name", says=f"{show(name)} is not an object's name", hint=hint)
    if namespace is not None and (not isinstance(namespace, str) or (namespace and not is_dns_label(namespace))):
        hint = "use lower-case letters, digits and dashes"
        yield problem("metadata", "namespace", says=f"{show(namespace)} is not a namespace", hint=hint)
    for field in ("labels", "annotations"):
        pairs = metadata.get(field)
        if pairs is not None and not isinstance(pairs, Mapping):
            yield problem(
                "metadata", field, says=f"a mapping is expected, and this is {show(pairs)}", hint="write key: value"
            )
        for key, value in pairs.items() if isinstance(pairs, Mapping) else ():
            if not isinstance(key, str) or not isinstance(value, str):
                says = f"text is expected, and this is {show(value)}"
                yield problem("metadata", field, str(key), says=says, hint="put it in quotes")
    generation = metadata.get("generation")
    if generation is not None and type(generation) is not int:
        yield problem(
            "metadata",
            "generation",
            says=f"a whole number is expected, and this is {show(generation)}",
            hint="remove it",
        )
    for key in metadata:
        if key not in _METADATA:
            meant = nearest(str(key), _METADATA)
            if meant:
                yield problem(
                    "metadata", str(key), says=f"there is no field {str(key)!r}", hint=f"did you mean {meant}?"
                )
