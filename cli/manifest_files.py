"""The manifests that a person names: files, directories with those below them, and standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mesh.checks import Finding
from mesh.manifest import Document, ManifestProblem, read_manifest

SUFFIXES = frozenset((".yaml", ".yml", ".json"))
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Manifests:
    """`problems`: text that is no manifest; `unreadable`: files; `ignored`: files of a directory that are not ours."""

    documents: tuple[Document, ...]
    problems: tuple[ManifestProblem, ...]
    unreadable: tuple[Finding, ...]
    ignored: tuple[Finding, ...]


def read_manifests(sources: Iterable[str]) -> Manifests:
    """What the files, directories and standard input that `sources` name hold. Never raises."""
    documents: list[Document] = []
    problems: list[ManifestProblem] = []
    unreadable: list[Finding] = []
    ignored: list[Finding] = []
    for file, from_directory in _files(sources, unreadable):
        text = _read(file, unreadable)
        if text is None:
            continue
        manifest = read_manifest(text, file)
        documents.extend(manifest.documents)
        for problem in manifest.problems:
            if from_directory and problem.foreign:
                ignored.append(Finding(problem.source, problem.line, "", "", "not a Kubernetes object: ignored"))
            else:
                problems.append(problem)
    return Manifests(tuple(documents), tuple(problems), tuple(unreadable), tuple(ignored))


def _files(sources: Iterable[str], unreadable: list[Finding]) -> Iterator[tuple[str, bool]]:
    """Names of files, and whether each was found in a directory rather than named; no file twice."""
    seen: set[Path] = set()
    for source in dict.fromkeys(sources):
        if source == STANDARD_INPUT or not Path(source).is_dir():
            yield source, False
            continue
        inside = sorted(file for file in Path(source).rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not inside:
            hint = f"files there must end in {', '.join(sorted(SUFFIXES))}"
            unreadable.append(Finding(source, 0, "", "", "the directory holds no manifest", hint))
        for file in inside:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield str(file), True


def _read(file: str, unreadable: list[Finding]) -> str | None:
    try:
        raw = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        return raw.decode()
    except OSError as error:
        unreadable.append(
            Finding(file, 0, "", "", f"it cannot be read: {error.strerror or error}", "check name and rights")
        )
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        unreadable.append(Finding(file, line, "", "", "it is not UTF-8 text", "save it as UTF-8"))
    return None
