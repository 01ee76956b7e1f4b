"""From YAML's nodes to the values of JSON, as kubectl converts them.

YAML 1.1 scalars (`on`, `yes`, `0755`, `1_000`) without its sexagesimal numbers (`80:80` is text) and dates; keys are
text; a key that stands twice, an unknown tag and an alias that contains itself are errors. The nodes come from libyaml;
its composer recurses without limit, so the depth is bounded before it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from mesh.problems import Path

MOST_VALUES = 1_000_000
"""In one document, after the expansion of aliases, which can make a small text huge."""
DEEPEST = 200
"""Levels of nesting in one document."""

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_TRUE = frozenset(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_INTEGER = re.compile(r"([-+]?)(?:0b([01]+)|0x([0-9a-fA-F]+)|0o?([0-7]+)|(0|[1-9][0-9]*))\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_EXPONENT = re.compile(r"[-+]?[0-9]{1,15}[eE][-+]?[0-9]{1,2}\Z")  # PyYAML takes 1e3 for text
_STARTS_NUMBER = frozenset("+-.0123456789")


class Unreadable(Exception):
    """The text is no YAML, or none that kubectl takes. `line` counts from 0."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


def load(text: str) -> Any:
    """The value of the one document in `text`; Unreadable when it has none that JSON has."""
    node = compose(text)
    return None if node is None else _Reader().value(node, 0)


def compose(text: str) -> yaml.Node | None:
    """The root node of the one document in `text` (None when it is empty)."""
    try:
        _check_depth(text)
        loader = _LOADER(text)
        try:
            node: yaml.Node | None = loader.get_single_node()
            return node
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _unreadable(text, error) from None
    except (UnicodeError, ValueError) as error:
        raise Unreadable(0, f"the text has characters that YAML does not allow: {error}", "save it as UTF-8") from None


def line_of(node: yaml.Node | None, path: Path) -> int:
    """The line, from 0, of the field at `path` below `node`, or of the nearest one above it that is there."""
    line = 0 if node is None else _line(node)
    for step in path:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    line, node = _line(key), value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = _line(node)
        else:
            return line
    return line


def span_of(node: yaml.Node | None, path: Path) -> tuple[int, int] | None:
    """The first line, from 0, of the entry at `path` (a key with its value, an item of a list), and that after it.

    None where there is no such entry. Comments and blank lines after it are not its own.
    """
    first = last = -1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                return None
            first, node = _line(found[0]), found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            first = _line(node)
        else:
            return None
        last = _last_line(node)
    return (first, last + 1) if path else None


def _last_line(node: yaml.Node) -> int:
    """Where the last of its scalars ends; a block's own end is where the next one begins."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        below = node.value[-1]
        return _last_line(below[1] if isinstance(node, yaml.MappingNode) else below)
    return int(node.end_mark.line)


class _Reader:
    """Converts one document; counts its values."""

    def __init__(self) -> None:
        self.count = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.count += 1
        line = _line(node)
        if self.count > MOST_VALUES:
            raise Unreadable(
                line, f"the document has more than {MOST_VALUES} values", "split it, or write fewer aliases"
            )
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if depth > DEEPEST:
            raise Unreadable(line, f"it is nested more than {DEEPEST} levels deep", "flatten it")
        if id(node) in self.open:
            raise Unreadable(line, "an alias contains itself", "write the value out")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
                return [self.value(item, depth + 1) for item in node.value]
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
                return self.mapping(node, depth)
        finally:
            self.open.discard(id(node))
        raise _foreign_tag(node)

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged.extend(self.merged(value_node, depth))
                continue
            key = _key(key_node)
            if key in own:
                line = _line(key_node)
                raise Unreadable(line, f"the key {key!r} stands twice in one mapping", "keep one of the two")
            own[key] = self.value(value_node, depth + 1)
        for other in merged:
            own = {**other, **own}
        return own

    def merged(self, node: yaml.Node, depth: int) -> Iterator[dict[str, Any]]:
        """The mappings that `<<` takes fields from; the earlier ones win."""
        value = self.value(node, depth + 1)
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                raise Unreadable(_line(node), "<< wants a mapping", "refer to one by *alias")
            yield each


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style in ("'", '"', "|", ">"):
        if node.tag in (f"{_TAG}str", "!"):
            return text
    elif node.tag in _PLAIN_TAGS:
        return _plain(text)
    elif node.tag == f"{_TAG}str":
        return float(text) if _EXPONENT.match(text) else text
    convert = _EXPLICIT.get(node.tag)
    if convert is None:
        raise _foreign_tag(node)
    try:
        return convert(text)
    except (ValueError, OverflowError):
        tag = node.tag.removeprefix(_TAG)
        raise Unreadable(_line(node), f"{text!r} is no !!{tag}", "remove the tag") from None


def _plain(text: str) -> Any:
    """A scalar without quotes and tag."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    return _number(text) if text[0] in _STARTS_NUMBER else text


def _number(text: str) -> Any:
    digits = text.replace("_", "")
    if whole := _INTEGER.match(digits):
        sign, binary, hexadecimal, octal, decimal = whole.groups()
        if len(digits) > 100:
            return float(digits) if decimal else text
        number = (
            int(binary, 2)
            if binary
            else int(hexadecimal, 16)
            if hexadecimal
            else int(octal, 8)
            if octal
            else int(decimal)
        )
        return -number if sign == "-" else number
    if _FLOAT.match(digits):
        number_ = float(digits)
        return number_ if number_ not in (float("inf"), float("-inf")) else text
    return text


def _key(node: yaml.Node) -> str:
    """Keys of JSON are text: 8080 becomes "8080", true "true"."""
    if not isinstance(node, yaml.ScalarNode):
        raise Unreadable(_line(node), "a key is a list or a mapping", _TEMPLATE_HINT)
    value = _scalar(node)
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_depth(text: str) -> None:
    """Raise Unreadable when the text is nested too deeply for libyaml's composer.

    Every level costs a column of some line or an opening bracket, so that most texts need no second look.
    """
    brackets = text.count("[") + text.count("{")
    if brackets + max(map(len, text.split("\n"))) <= DEEPEST:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise Unreadable(_line(event), f"it is nested more than {DEEPEST} levels deep", "flatten it")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _unreadable(text: str, error: yaml.YAMLError) -> Unreadable:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line if mark is not None else 0
    lines = text.split("\n")
    here = lines[line] if line < len(lines) else ""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    if _TEMPLATE.search(here):
        return Unreadable(line, f"this is a template, not YAML: {reason}", _TEMPLATE_HINT)
    if "\t" in here[: len(here) - len(here.lstrip())] or "\\t" in reason:
        return Unreadable(line, "a tab stands where YAML wants spaces", "indent with spaces")
    column = f" at column {mark.column + 1}" if mark is not None else ""
    hint = "look at the indentation and quotes of this line and the one before"
    return Unreadable(line, f"this is not YAML: {reason}{column}", hint)


def _line(node: yaml.Node | yaml.Event) -> int:
    return node.start_mark.line if node.start_mark is not None else 0


def _foreign_tag(node: yaml.Node) -> Unreadable:
    return Unreadable(_line(node), f"the tag {node.tag.replace(_TAG, '!!')} has no place in a manifest", "remove it")


_TEMPLATE_HINT = "render templates first, for example by: helm template"
_PLAIN_TAGS = frozenset(f"{_TAG}{name}" for name in ("int", "float", "bool", "null", "timestamp", "value", "merge"))
_EXPLICIT: dict[str, Callable[[str], Any]] = {f"{_TAG}str": str, f"{_TAG}int": int, f"{_TAG}float": float}
