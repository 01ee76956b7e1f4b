"""Injection templates of one's own: patches of a pod, with placeholders. Pure.

A template is YAML, the `metadata` and `spec` of a pod as far as it says something, merged as `kubectl patch` does
(webhook/merge.py). Texts in it may hold placeholders, which are replaced after the YAML was read, so that no value can
become structure:

    {{ pod.name }}  {{ pod.namespace }}  {{ pod.serviceAccount }}  {{ pod.workload }}
    {{ pod.labels["app"] }}  {{ pod.annotations["team"] | default "nobody" }}
    {{ mesh.trustDomain }}  {{ mesh.revision }}  {{ mesh.controlNamespace }}  {{ proxy.image }}

There are no conditions, loops or functions; what a pod lacks and has no default refuses that pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.errors import InvalidInput
from mesh.problems import show, spell
from mesh.yaml_values import Unreadable, load

Raw = dict[str, Any]
Values = Mapping[str, str | Mapping[str, str]]
"""What placeholders may name: texts, and mappings of texts for `labels` and `annotations`."""

NAMES = (
    "pod.name",
    "pod.namespace",
    "pod.serviceAccount",
    "pod.workload",
    "pod.labels",
    "pod.annotations",
    "mesh.trustDomain",
    "mesh.revision",
    "mesh.controlNamespace",
    "proxy.image",
)
_MAPPINGS = ("pod.labels", "pod.annotations")
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_EXPRESSION = re.compile(
    r"""\s*(?P<name>[a-zA-Z]+\.[a-zA-Z]+)(?:\[(["'])(?P<key>[^"'\]]+)\2\])?"""
    r"""(?:\s*\|\s*default\s+(["'])(?P<default>[^"']*)\4)?\s*\Z"""
)
_HINT = 'write such as {{ pod.labels["app"] | default "none" }}; conditions, loops and functions are not supported'
_MAX_TEXT = 64 << 10

_Part = Callable[[Values], str]


@dataclass(frozen=True, slots=True)
class Template:
    """`patch(values)` is the template for one pod; InvalidInput names what that pod lacks."""

    name: str
    _tree: Any

    def patch(self, values: Values) -> Raw:
        try:
            filled: Raw = _fill(self._tree, values)
        except InvalidInput as error:
            raise InvalidInput(f"template {self.name}: {error.message}", hint=error.hint) from None
        return filled


def parse_template(name: str, text: object) -> Template:
    """A template from its YAML, as text or read already. InvalidInput names the field that is wrong."""
    where = f"templates.{name}"
    if isinstance(text, str):
        if len(text) > _MAX_TEXT:
            raise InvalidInput(f"it has more than {_MAX_TEXT} characters", field=where)
        try:
            text = load(text)
        except Unreadable as error:
            hint = _HINT if "{{" in str(text) else error.hint
            raise InvalidInput(
                f"it cannot be read at line {error.line + 1}: {error.message}", field=where, hint=hint
            ) from None
    _check(text, where)
    return Template(name, _compiled(text, (where,)))


def _check(patch: object, where: str) -> None:
    if not isinstance(patch, dict) or not patch:
        raise InvalidInput(f"must be a mapping with metadata or spec, not {show(patch)}", field=where)
    for name, value in patch.items():
        if name not in ("metadata", "spec"):
            raise InvalidInput("is not part of a template", field=f"{where}.{name}", hint="write metadata and spec")
        if not isinstance(value, dict):
            raise InvalidInput(f"must be a mapping, not {show(value)}", field=f"{where}.{name}")
    for place in ("containers", "initContainers", "volumes"):
        items = (patch.get("spec") or {}).get(place, [])
        if not isinstance(items, list) or not all(
            isinstance(i, dict) and isinstance(i.get("name"), str) for i in items
        ):
            raise InvalidInput("must be a list of mappings with a name each", field=f"{where}.spec.{place}")
    for place in ("labels", "annotations"):
        texts = (patch.get("metadata") or {}).get(place, {})
        if not isinstance(texts, dict) or not all(isinstance(text, str | None) for text in texts.values()):
            raise InvalidInput("must be a mapping of texts", field=f"{where}.metadata.{place}", hint="use quotes")


class _Text(tuple[_Part, ...]):
    """A text with placeholders, in parts."""

    __slots__ = ()


def _compiled(value: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or "{{" in key:
                raise InvalidInput(f"{show(key)} cannot be the name of a field", field=spell(path), hint=_HINT)
        return {key: _compiled(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_compiled(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, str) and "{{" in value:
        return _Text(_parts(value, spell(path)))
    return value


def _parts(text: str, field: str) -> Iterator[_Part]:
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > end:
            yield _constant(text[end : found.start()])
        yield _placeholder(found[1], field)
        end = found.end()
    rest = text[end:]
    if "{{" in rest:
        raise InvalidInput("a {{ has no }}", field=field, hint=_HINT)
    if rest:
        yield _constant(rest)


def _constant(text: str) -> _Part:
    return lambda _values: text


def _placeholder(expression: str, field: str) -> _Part:
    parsed = _EXPRESSION.match(expression)
    if parsed is None or parsed["name"] not in NAMES or (parsed["name"] in _MAPPINGS) != (parsed["key"] is not None):
        known = ", ".join(f'{name}["..."]' if name in _MAPPINGS else name for name in NAMES)
        shown = "{{" + expression + "}}"
        raise InvalidInput(f"{show(shown)} is not a placeholder (known: {known})", field=field, hint=_HINT)
    name, key, default = parsed["name"], parsed["key"], parsed["default"]

    def value(values: Values) -> str:
        found = values[name]
        text = found if isinstance(found, str) else found.get(key, "")
        if text:
            return text
        if default is None:
            what = f'{name}["{key}"]' if key else name
            raise InvalidInput(f"this pod has no {what}", hint='give a default: {{ ... | default "..." }}')
        return default

    return value


def _fill(tree: Any, values: Values) -> Any:
    if isinstance(tree, _Text):
        return "".join(part(values) for part in tree)
    if isinstance(tree, dict):
        return {key: _fill(item, values) for key, item in tree.items()}
    return [_fill(item, values) for item in tree] if isinstance(tree, list) else tree
