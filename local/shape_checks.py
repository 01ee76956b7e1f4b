"""Checks of types, put together to tables: each yields what is wrong with a value, in the words of a manifest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mesh.problems import FieldProblem, Path, show

Check = Callable[[Any, Path], Iterator[FieldProblem]]
_LONGEST_PORT_NAME = 15


def text(value: Any, path: Path) -> Iterator[FieldProblem]:
    if not isinstance(value, str):
        hint = "put it in quotes" if isinstance(value, (bool, int, float)) else "write text"
        yield FieldProblem(path, f"text is expected, and this is {show(value)}", hint)


def flag(value: Any, path: Path) -> Iterator[FieldProblem]:
    if not isinstance(value, bool):
        yield FieldProblem(path, f"true or false is expected, and this is {show(value)}", "write it without quotes")


def whole(least: int, most: int) -> Check:
    def check(value: Any, path: Path) -> Iterator[FieldProblem]:
        if not isinstance(value, int) or isinstance(value, bool):
            says = f"a whole number is expected, and this is {show(value)}"
            yield FieldProblem(path, says, "write it in digits and without quotes")
        elif not least <= value <= most:
            yield FieldProblem(path, f"{show(value)} is not from {least} to {most}", "use a number in range")

    return check


def at_least(least: int) -> Check:
    return whole(least, 2**31 - 1)


port = whole(1, 65535)


def port_or_name(value: Any, path: Path) -> Iterator[FieldProblem]:
    if isinstance(value, str):
        return
    if not isinstance(value, int) or isinstance(value, bool):
        says = f"a port number or the name of a port is expected, and this is {show(value)}"
        yield FieldProblem(path, says, "such as 8080 or http")
    elif not 0 <= value <= 65535:
        yield FieldProblem(path, f"{show(value)} is no port", "use a number from 1 to 65535")


def names_or_numbers(value: Any, path: Path) -> Iterator[FieldProblem]:
    """A port written as text: digits, or a name as containers give their ports (RFC 6335: at most 15 characters)."""
    if not isinstance(value, str) or not value:
        return
    if value.isascii() and value.isdigit():
        yield from port(int(value), path)
    elif len(value) > _LONGEST_PORT_NAME:
        yield FieldProblem(path, f"{show(value)} is longer than {_LONGEST_PORT_NAME} characters", "use a shorter name")


def one_of(*allowed: str) -> Check:
    def check(value: Any, path: Path) -> Iterator[FieldProblem]:
        if value not in allowed:
            yield FieldProblem(path, f"{show(value)} is not one of {', '.join(allowed)}", "use one of them")

    return check


def texts(value: Any, path: Path) -> Iterator[FieldProblem]:
    """A mapping of text to text."""
    if not isinstance(value, Mapping):
        yield _no_mapping(value, path)
        return
    for name, item in value.items():
        yield from text(item, (*path, str(name)))


def listing(item: Check, *, least: int = 0) -> Check:
    def check(value: Any, path: Path) -> Iterator[FieldProblem]:
        if not isinstance(value, list):
            says = f"a list is expected, and this is {show(value)}"
            yield FieldProblem(path, says, "begin each item with a dash")
            return
        if len(value) < least:
            yield FieldProblem(path, "the list is empty", "add an item")
        for index, each in enumerate(value):
            yield from item(each, (*path, index))

    return check


def mapping(fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    """Fields that are not in `fields` are left alone."""

    def check(value: Any, path: Path) -> Iterator[FieldProblem]:
        if not isinstance(value, Mapping):
            yield _no_mapping(value, path)
            return
        for name in required:
            if value.get(name) is None:
                yield FieldProblem((*path, name), "this field is required", f"add {name}")
        for name, item in value.items():
            if name in fields and item is not None:
                yield from fields[name](item, (*path, name))

    return check


def _no_mapping(value: Any, path: Path) -> FieldProblem:
    return FieldProblem(path, f"a mapping is expected, and this is {show(value)}", "write key: value")
