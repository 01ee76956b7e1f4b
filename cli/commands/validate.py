"""`heddle validate`: checks Istio's kinds in manifests, offline."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

import click
import orjson
import yaml

from cli.manifest_files import read_manifests
from mesh.checks import Report, check_documents
from mesh.validation import DEFAULT_NAMESPACE


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
    found = read_manifests(sources)
    report = check_documents(found.documents, found.problems, namespace)
    return replace(report, errors=(*found.unreadable, *report.errors), warnings=(*found.ignored, *report.warnings))


def _render(report: Report, output: str) -> str:
    if output == "json":
        return orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2).decode()
    if output == "yaml":
        return yaml.safe_dump(report.as_json(), sort_keys=False, allow_unicode=True, width=120).rstrip()
    lines = [f"error: {finding}" for finding in report.errors]
    lines += [f"warning: {finding}" for finding in report.warnings]
    return "\n".join([*lines, report.summary()])
