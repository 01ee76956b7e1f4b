"""Manifests as people write them: YAML or JSON text in, documents with their places out.

Read as `kubectl` reads them: streams of several documents, `kind: List`, JSON as well. Documents are read one by one,
so that a mistake in one hides nothing in the others. Pure: the reading of files is the caller's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mesh.errors import InvalidInput
from mesh.problems import Path, show
from mesh.yaml_values import DEEPEST, Unreadable, compose, line_of, load, span_of

_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_JSON = json.JSONDecoder(object_pairs_hook=lambda pairs: _once(pairs))


@dataclass(frozen=True, slots=True)
class ManifestProblem:
    """Text that is no manifest. `line` counts from 1.

    `foreign`: YAML in order, but without apiVersion and kind, so probably a file of some other program.
    """

    source: str
    line: int
    message: str
    hint: str = ""
    foreign: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ManifestErrors(InvalidInput):
    """Everything in some text that is no manifest."""

    def __init__(self, problems: Iterable[ManifestProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@lru_cache(maxsize=4)
def _node(text: str) -> Any:
    return compose(text)


@dataclass(frozen=True, slots=True)
class _Part:
    """One document of a stream, and the line of the source, from 1, that it begins at."""

    text: str
    first_line: int

    def line_of(self, path: Path) -> int:
        try:
            return self.first_line + line_of(_node(self.text), path)
        except Unreadable:  # JSON that is no YAML: with tabs
            return self.first_line

    def span_of(self, path: Path) -> tuple[int, int] | None:
        try:
            span = span_of(_node(self.text), path)
        except Unreadable:
            return None
        return (self.first_line + span[0], self.first_line + span[1]) if span else None


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a manifest: `raw` as Kubernetes' JSON would have it, and where it stands.

    `index` counts the objects of its source from 0; `line` counts lines from 1; `within` is the way from the stream's
    document to this object (`("items", 3)` in a List).
    """

    source: str
    index: int
    line: int
    raw: dict[str, Any]
    within: Path
    _part: _Part = field(repr=False, compare=False)

    @property
    def api_version(self) -> str:
        return str(self.raw["apiVersion"])

    @property
    def kind(self) -> str:
        return str(self.raw["kind"])

    @property
    def name(self) -> str:
        """The name, or `<generateName>*` of an object that gets its name from the API server."""
        meta = self.raw["metadata"]
        return str(meta.get("name") or f"{meta['generateName']}*")

    @property
    def namespace(self) -> str:
        """The namespace; "" when the manifest names none."""
        return str(self.raw["metadata"].get("namespace") or "")

    def line_of(self, path: Path) -> int:
        """The line, from 1, of the field at `path` (such as `("spec", "http", 0)`), or of the nearest above it."""
        return self._part.line_of((*self.within, *path))

    def span_of(self, path: Path) -> tuple[int, int] | None:
        """The first line, from 1, of the entry at `path`, and that after its last; None where there is none."""
        return self._part.span_of((*self.within, *path))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a text holds: the objects that could be read, and what could not."""

    documents: tuple[Document, ...]
    problems: tuple[ManifestProblem, ...]


def documents(text: str, source: str) -> tuple[Document, ...]:
    """The objects in `text`; ManifestErrors with everything that is wrong. `source` is a file's name, for errors."""
    manifest = read_manifest(text, source)
    if manifest.problems:
        raise ManifestErrors(manifest.problems)
    return manifest.documents


def read_manifest(text: str, source: str) -> Manifest:
    """The objects in `text` that can be read, and every problem of those that cannot."""
    found: list[Document] = []
    problems: list[ManifestProblem] = []
    for part, value in _values(text.removeprefix("\ufeff")):
        if isinstance(value, Unreadable):
            problems.append(ManifestProblem(source, part.first_line + value.line, value.message, value.hint))
            continue
        for within, raw in _objects(value, ()):
            if wrong := _not_an_object(raw):
                path, message, hint = wrong
                foreign = not within and isinstance(raw, dict) and not {"apiVersion", "kind"} & raw.keys()
                problems.append(ManifestProblem(source, part.line_of((*within, *path)), message, hint, foreign))
            else:
                line = part.line_of(within) if within else part.first_line + _leading_lines(part.text)
                found.append(Document(source, len(found), line, raw, within, part))
    return Manifest(tuple(found), tuple(problems))


def _values(text: str) -> Iterator[tuple[_Part, Any]]:
    """The documents of the stream, each with its value or what is wrong with it. Empty documents are left out."""
    if text.lstrip().startswith("{"):
        whole = list(_json_values(text))
        if whole and not any(isinstance(value, json.JSONDecodeError) for _, value in whole):
            yield from whole
            return
    for part in _parts(text):
        try:
            value = load(part.text)
        except Unreadable as error:
            value = error
        if value is not None:
            yield part, value


def _parts(text: str) -> Iterator[_Part]:
    """The stream cut at its `---` lines, which cannot stand within a document."""
    start = 0
    line = 1
    for cut in [*(match.start() for match in _SEPARATOR.finditer(text)), len(text)]:
        part = text[start:cut]
        if part.strip():
            yield _Part(part, line)
        line += part.count("\n")
        start = cut


def _json_values(text: str) -> Iterator[tuple[_Part, Any]]:
    """The values of concatenated JSON, as kubectl takes it; ends with a JSONDecodeError where it is no JSON."""
    position = 0
    while position < len(text):
        start = len(text) - len(text[position:].lstrip())
        if start == len(text):
            return
        first_line = 1 + text.count("\n", 0, start)
        try:
            value, position = _JSON.raw_decode(text, start)
        except json.JSONDecodeError as error:
            yield _Part(text, 1), error
            return
        except Unreadable as error:
            yield _Part(text[start:], first_line), error
            return
        except RecursionError:
            yield (
                _Part(text[start:], first_line),
                Unreadable(0, f"it is nested more than {DEEPEST} levels deep", "flatten it"),
            )
            return
        yield _Part(text[start:position], first_line), value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unreadable(0, f"the key {twice!r} stands twice in one mapping", "keep one of the two")
    return mapping


def _objects(value: Any, within: Path) -> Iterator[tuple[Path, Any]]:
    """`value` itself, or what it lists."""
    if isinstance(value, dict) and isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        for index, item in enumerate(value["items"]):
            yield from _objects(item, (*within, "items", index))
    else:
        yield within, value


def _not_an_object(raw: Any) -> tuple[Path, str, str] | None:
    """Why `raw` is no Kubernetes object: where, what, and the way out."""
    if not isinstance(raw, dict):
        return (), f"an object is expected here, and this is {show(raw)}", "begin with apiVersion, kind and metadata"
    for key, example in (("apiVersion", "networking.istio.io/v1"), ("kind", "VirtualService")):
        if key not in raw or raw[key] is None:
            return (), f"the object has no {key}", f"add it, such as {key}: {example}"
        if not isinstance(raw[key], str) or not raw[key]:
            return (key,), f"{key} is {show(raw[key])}", f"write a name, such as {key}: {example}"
    meta = raw.get("metadata")
    if not isinstance(meta, dict):
        return ("metadata",), f"{raw['kind']}: the object has no metadata", "add metadata.name"
    name = meta.get("name") or meta.get("generateName")
    if not name:
        return ("metadata",), f"{raw['kind']}: the object has no name", "add metadata.name"
    for key in ("name", "generateName", "namespace"):
        if meta.get(key) is not None and not isinstance(meta[key], str):
            says = f"{raw['kind']}: metadata.{key} is {show(meta[key])}, not text"
            return ("metadata", key), says, "put it in quotes"
    return None


def _leading_lines(text: str) -> int:
    """How many lines of separators, comments and blanks stand before the document's content."""
    for number, line in enumerate(text.split("\n")):
        content = line.removeprefix("---").strip() if number == 0 else line.strip()
        if content and not content.startswith("#"):
            return number
    return 0
