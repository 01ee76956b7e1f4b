"""`heddle validate` without its files: documents in, a report of every error and warning out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mesh.analysis.registry import examine
from mesh.analysis.view import View
from mesh.assembly import with_namespace
from mesh.istio.base import IstioObject
from mesh.kinds import group_of, is_istio, kind_of, parse_with_warnings, without_effect
from mesh.manifest import Document, ManifestProblem
from mesh.objects import Key, Service, parse_service
from mesh.problems import FieldProblem, ObjectErrors
from mesh.settings import is_settings, settings_problems
from mesh.snapshot import Snapshot
from mesh.validation import DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Finding:
    """One error or warning. `line` counts from 1 (0: the file could not be read); `about` is "" without an object."""

    file: str
    line: int
    about: str
    field: str
    message: str
    hint: str = ""
    value: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        parts = [place, *(part for part in (self.about, self.field) if part), self.message]
        return ": ".join(parts) + (f" ({self.hint})" if self.hint else "")

    def as_json(self) -> dict[str, str | int]:
        """All fields that hold something; the object as `object`."""
        body: dict[str, str | int] = {"file": self.file, "line": self.line, "object": self.about, "field": self.field}
        body |= {"message": self.message, "hint": self.hint, "value": self.value}
        return {key: value for key, value in body.items() if value}


@dataclass(frozen=True, slots=True)
class Report:
    """`checked`: objects of Istio's kinds; `not_checked`: all others."""

    checked: int
    not_checked: int
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        return not self.errors

    def as_json(self) -> dict[str, Any]:
        return {
            "valid": self.valid,
            "checked": self.checked,
            "notChecked": self.not_checked,
            "errors": [finding.as_json() for finding in self.errors],
            "warnings": [finding.as_json() for finding in self.warnings],
        }

    def summary(self) -> str:
        """One line for people."""
        words = [
            _count(self.checked, "object of Istio's kinds", "objects of Istio's kinds"),
            _count(len(self.errors), "error"),
        ]
        words.append(_count(len(self.warnings), "warning"))
        words.append(f"{self.not_checked} of other kinds not checked")
        return ", ".join(words)


def check_documents(
    documents: Iterable[Document], problems: Iterable[ManifestProblem] = (), namespace: str = DEFAULT_NAMESPACE
) -> Report:
    """Checks every object of Istio's kinds, alone and against the others, and the ConfigMap with the mesh's settings.

    `problems` are those of the reading; `namespace` is that of objects that name none.
    """
    every = tuple(documents)
    errors = [Finding(each.source, each.line, "", "", each.message, each.hint) for each in problems]
    warnings: list[Finding] = []
    parsed: dict[int, IstioObject[Any]] = {}
    checked = 0
    for number, document in enumerate(every):
        if is_settings(document.raw):
            checked += 1
            errors.extend(_finding(document, namespace, each) for each in settings_problems(document.raw))
            continue
        if not is_istio(document.api_version):
            continue
        try:
            kind_of(document.raw)
            checked += 1
            istio_object, found = parse_with_warnings(document.raw, namespace)
        except ObjectErrors as error:
            found_here = [_finding(document, namespace, each) for each in error.problems]
            errors.extend(sorted(found_here, key=lambda finding: finding.line))
            continue
        parsed[number] = istio_object
        found = (*found, *without_effect(istio_object))
        warnings.extend(_finding(document, namespace, each) for each in found)
    warnings.extend(_across(every, parsed, namespace))
    warnings.extend(_twice(every, namespace))
    ordered = sorted(warnings, key=lambda finding: (finding.file, finding.line))
    return Report(checked, len(every) - checked, tuple(errors), tuple(ordered))


def _finding(document: Document, namespace: str, each: FieldProblem) -> Finding:
    about = f"{document.kind} {document.namespace or namespace}/{document.name}"
    line = document.line_of(each.path)
    return Finding(document.source, line, about, each.field, each.message, each.hint, each.value)


def _across(every: tuple[Document, ...], parsed: dict[int, IstioObject[Any]], namespace: str) -> Iterator[Finding]:
    """What the objects say of each other."""
    by_object = {id(istio_object): every[number] for number, istio_object in parsed.items()}
    istio: dict[str, dict[Key, IstioObject[Any]]] = {}
    for each in parsed.values():
        istio.setdefault(each.kind, {})[Key(each.namespace, each.name)] = each
    services = [_service(each, namespace) for each in every if (each.api_version, each.kind) == ("v1", "Service")]
    snapshot = Snapshot(services={service.meta.key: service for service in services}, istio=istio)
    view = View(snapshot, complete=False)
    for istio_object in parsed.values():
        for found in examine(view, istio_object):
            yield _finding(by_object[id(istio_object)], namespace, found.problem)


def _service(document: Document, namespace: str) -> Service:
    """A Service that is wrong, which is for the API server to say, is there all the same, without ports."""
    raw = with_namespace(document.raw, namespace)
    try:
        return parse_service(raw)
    except (AttributeError, KeyError, TypeError, ValueError):
        return parse_service({"metadata": {key: raw["metadata"].get(key) for key in ("name", "namespace")}})


def _twice(every: tuple[Document, ...], namespace: str) -> Iterator[Finding]:
    """Istio's objects that the files hold more than once."""
    first: dict[tuple[str, str, str, str], Document] = {}
    for document in every:
        if is_istio(document.api_version):
            home = document.namespace or namespace
            before = first.setdefault((group_of(document.api_version), document.kind, home, document.name), document)
            if before is not document:
                says = f"it stands at {before.source}:{before.line} too: the later one wins"
                yield _finding(
                    document, namespace, FieldProblem(("metadata", "name"), says, "remove one", warning=True)
                )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
