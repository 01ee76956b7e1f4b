"""The RFC 6902 patch from one JSON value to another, small and fast, and checked. Pure.

`jsonpatch.make_patch` compares lists by position, so that a container put first becomes a rewrite of all others, and it
takes milliseconds for a pod. Here lists of named things are compared by name, and values that are the same object
are not looked into. What comes out is applied by jsonpatch to a copy and compared before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jsonpatch

from mesh.errors import HeddleError

Operation = dict[str, Any]


def make_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Operation]:
    """Operations that turn `before` into `after`."""
    operations: list[Operation] = []
    _objects(before, after, "", operations)
    return operations


def check_patch(operations: Sequence[Operation], copy: dict[str, Any], after: Mapping[str, Any]) -> None:
    """HeddleError unless `operations` turn `copy` (which is used up) into `after`."""
    held = [
        {**operation, "value": _held(operation["value"])} if "value" in operation else operation
        for operation in operations
    ]
    try:
        result = jsonpatch.JsonPatch(held).apply(copy, in_place=True)
    except jsonpatch.JsonPatchException as error:
        raise HeddleError(f"the patch does not apply to the pod: {error}") from error
    if result != after:
        raise HeddleError("the patch does not give the injected pod")


# Most of the time of `check_patch` would go into the copies that jsonpatch makes of values. Nobody but the comparison
# sees the result, so they are values that do not mind being shared.
class _HeldObject(dict[str, Any]):
    def __deepcopy__(self, _memo: object) -> _HeldObject:
        return self


class _HeldList(list[Any]):
    def __deepcopy__(self, _memo: object) -> _HeldList:
        return self


def _held(value: Any) -> Any:
    if isinstance(value, dict):
        return _HeldObject(value)
    return _HeldList(value) if isinstance(value, list) else value


def _differ(before: Any, after: Any, path: str, operations: list[Operation]) -> None:
    if before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        _objects(before, after, path, operations)
    elif isinstance(before, list) and isinstance(after, list):
        _lists(before, after, path, operations)
    elif type(before) is not type(after) or before != after:
        operations.append({"op": "replace", "path": path, "value": after})


def _objects(before: Mapping[str, Any], after: Mapping[str, Any], path: str, operations: list[Operation]) -> None:
    operations.extend({"op": "remove", "path": f"{path}/{_escape(key)}"} for key in before if key not in after)
    for key, value in after.items():
        where = f"{path}/{_escape(key)}"
        if key in before:
            _differ(before[key], value, where, operations)
        else:
            operations.append({"op": "add", "path": where, "value": value})


def _lists(before: list[Any], after: list[Any], path: str, operations: list[Operation]) -> None:
    """Insertions and changes in place where `after` keeps the order of `before`; otherwise the list is replaced."""
    old, new = _names(before), _names(after)
    if old is None or new is None or not _in_order(old, new):
        if before != after:
            operations.append({"op": "replace", "path": path, "value": after})
        return
    known = dict(zip(old, before, strict=True))
    for index, (name, value) in enumerate(zip(new, after, strict=True)):
        where = f"{path}/{index}"
        if name in known:
            _differ(known[name], value, where, operations)
        else:
            operations.append({"op": "add", "path": where, "value": value})


def _names(items: list[Any]) -> list[str] | None:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    unique = {name for name in names if isinstance(name, str)}
    return names if len(unique) == len(names) else None  # type: ignore[return-value]  # all are text by then


def _in_order(old: list[str], new: list[str]) -> bool:
    """Whether `new` holds all of `old`, in that order."""
    rest = iter(new)
    return all(name in rest for name in old)


def _escape(key: str) -> str:
    """RFC 6901 section 3."""
    return key.replace("~", "~0").replace("/", "~1")
