"""`heddle validate`: checks Istio's kinds in manifests, offline."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import orjson
import yaml

from mesh.checks import Finding, Report, check_documents
from mesh.manifest import Document, ManifestProblem, read_manifest
from mesh.validation import DEFAULT_NAMESPACE

SUFFIXES = frozenset((".yaml", ".yml", ".json"))
STANDARD_INPUT = "-"


@click.command("validate")
@click.option(
    "-f",
    "--filename",
    "sources",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="A manifest, a directory of manifests (with those below it), or - for standard input. Can be repeated.",
)
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Of objects that name none.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
def command(sources: tuple[str, ...], namespace: str, output: str) -> None:
    """Check Istio's kinds without a cluster.

    Ends with 0 when there is no error (warnings are allowed), else with 1 and every error: file and line, object,
    field, what is wrong and the way out. Objects of other kinds are counted and not checked.
    """
    report = validate(sources, namespace)
    print(_render(report, output))
    sys.exit(0 if report.valid else 1)


def validate(sources: Iterable[str], namespace: str = DEFAULT_NAMESPACE) -> Report:
    """The report on the files, directories and standard input that `sources` name."""
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
    report = check_documents(documents, problems, namespace)
    return replace(report, errors=(*unreadable, *report.errors), warnings=(*ignored, *report.warnings))


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


def _render(report: Report, output: str) -> str:
    if output == "json":
        return orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2).decode()
    if output == "yaml":
        return yaml.safe_dump(report.as_json(), sort_keys=False, allow_unicode=True, width=120).rstrip()
    lines = [f"error: {finding}" for finding in report.errors]
    lines += [f"warning: {finding}" for finding in report.warnings]
    return "\n".join([*lines, report.summary()])
