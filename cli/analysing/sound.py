"""What in manifests no API server would take, as findings; the rest is looked at without it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cli.diffing.overlay import key_of
from local.offline import Objects, completed, mistakes
from mesh.analysis.injection import INVALID_ANNOTATION
from mesh.analysis.model import Finding, Subject
from mesh.analysis.objects import INVALID
from mesh.kinds import find_kind, is_istio, kind_of
from mesh.manifest import Document
from mesh.problems import FieldProblem, ObjectErrors
from mesh.validation import DEFAULT_NAMESPACE

Raw = dict[str, Any]


def of_files(documents: Sequence[Document]) -> tuple[Objects, list[Finding]]:
    """What a cluster would make of the manifests, and what is wrong with some."""
    unsound = [each for document in documents for each in _of_unknown_kind(document)]

    def wrong(raw: Raw, error: ObjectErrors) -> None:
        entry = find_kind(raw["apiVersion"], raw["kind"])
        home = raw["metadata"].get("namespace") or DEFAULT_NAMESPACE
        about = Subject(raw["kind"], home if entry is None or entry.namespaced else "", raw["metadata"].get("name", ""))
        unsound.extend(_finding(about, each) for each in error.problems)

    return completed((document.raw for document in documents), DEFAULT_NAMESPACE, wrong), unsound


def sound_of(documents: Iterable[Document]) -> tuple[list[Document], list[Finding]]:
    """The manifests that can be applied as they are, and what is wrong with the others."""
    sound: list[Document] = []
    unsound: list[Finding] = []
    for document in documents:
        about = Subject(document.kind, *key_of(document, DEFAULT_NAMESPACE))
        found = [_finding(about, each) for each in mistakes(document.raw)]
        unsound += [*found, *_of_unknown_kind(document)]
        if not found:
            sound.append(document)
    return sound, unsound


def _of_unknown_kind(document: Document) -> list[Finding]:
    """Kinds that Istio does not have; others may well be somebody's."""
    entry = find_kind(document.api_version, document.kind)
    if entry is not None or not is_istio(document.api_version):
        return []
    try:
        kind_of(document.raw)
    except ObjectErrors as error:
        about = Subject(document.kind, *key_of(document, DEFAULT_NAMESPACE))
        return [_finding(about, each) for each in error.problems]
    return []


def _finding(about: Subject, problem: FieldProblem) -> Finding:
    return Finding(INVALID_ANNOTATION if "annotations" in problem.path else INVALID, about, problem)
