"""Whether some JSON has the shape of a pod, as far as injection looks. Pure.

Not a validation of pods: the API server does that, after the webhooks. This is what lets the code behind it read fields
without asking again, and turns everything else into an error that names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mesh.problems import FieldProblem, ObjectErrors, Path, show

Check = Callable[[Any, Path], Iterator[FieldProblem]]


def check_pod(pod: object, about: str) -> dict[str, Any]:
    """`pod`, when it has the shape of one; ObjectErrors with every field that has not."""
    problems = list(_POD(pod, ()))
    if problems:
        raise ObjectErrors(about, problems)
    assert isinstance(pod, dict)
    return pod


def _is(kind: type, called: str) -> Check:
    def check(value: Any, path: Path) -> Iterator[FieldProblem]:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            yield FieldProblem(path, f"must be {called}, not {show(value)}")

    return check


_text = _is(str, "text")
_number = _is(int, "a whole number")
_truth = _is(bool, "true or false")
_object = _is(dict, "an object")


def _name(value: Any, path: Path) -> Iterator[FieldProblem]:
    if not isinstance(value, str) or not value:
        yield FieldProblem(path, f"must be a name, not {show(value)}")


def _texts(value: Any, path: Path) -> Iterator[FieldProblem]:
    if not isinstance(value, dict):
        yield FieldProblem(path, f"must be an object of texts, not {show(value)}")
        return
    for key, text in value.items():
        if not isinstance(text, str):
            yield FieldProblem((*path, key), f"must be text, not {show(text)}", "put it in quotes")


def _list_of(each: Check) -> Check:
    def check(value: Any, path: Path) -> Iterator[FieldProblem]:
        if not isinstance(value, list):
            yield FieldProblem(path, f"must be a list, not {show(value)}")
            return
        for index, item in enumerate(value):
            yield from each(item, (*path, index))

    return check


def _fields(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    """An object; an optional field may be missing or null, as in Kubernetes' JSON."""

    def check(value: Any, path: Path) -> Iterator[FieldProblem]:
        if not isinstance(value, dict):
            yield FieldProblem(path, f"must be an object, not {show(value)}")
            return
        for name, of_field in required.items():
            if value.get(name) is None:
                yield FieldProblem((*path, name), "is missing")
            else:
                yield from of_field(value[name], (*path, name))
        for name, of_field in optional.items():
            if value.get(name) is not None:
                yield from of_field(value[name], (*path, name))

    return check


_CONTAINER = _fields(
    {"name": _name},
    {
        "image": _text,
        "restartPolicy": _text,
        "env": _list_of(_fields({"name": _name}, {})),
        "ports": _list_of(_fields({"containerPort": _number}, {"name": _text, "protocol": _text})),
        "volumeMounts": _list_of(_fields({"mountPath": _text}, {"name": _text})),
        "resources": _object,
        "securityContext": _object,
        "livenessProbe": _object,
        "readinessProbe": _object,
        "startupProbe": _object,
        "lifecycle": _object,
    },
)

_POD = _fields(
    {
        "metadata": _fields(
            {},
            {
                "name": _text,
                "generateName": _text,
                "namespace": _text,
                "labels": _texts,
                "annotations": _texts,
                "ownerReferences": _list_of(_object),
            },
        ),
        "spec": _fields(
            {"containers": _list_of(_CONTAINER)},
            {
                "initContainers": _list_of(_CONTAINER),
                "volumes": _list_of(_fields({"name": _name}, {})),
                "hostNetwork": _truth,
                "terminationGracePeriodSeconds": _number,
                "securityContext": _fields({}, {"sysctls": _list_of(_object)}),
            },
        ),
    },
    {},
)
