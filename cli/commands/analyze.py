"""`heddle analyze`: what is wrong and what is doubtful in manifests, in a mesh, or in manifests on top of a mesh."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import orjson
import yaml

from cli.analysing.fixes import corrected
from cli.analysing.found import Placed, at_least, found, kept, suppression
from cli.analysing.view import as_json, line, sarif, text
from cli.control_namespace import mesh_options
from cli.diffing.overlay import applied
from cli.manifest_files import STANDARD_INPUT, Manifests, read_manifests
from cli.mesh_objects import live_objects
from local.offline import Objects, completed
from mesh.analysis.model import Severity
from mesh.checks import Finding as Unreadable
from mesh.errors import HeddleError, InvalidInput
from mesh.validation import DEFAULT_NAMESPACE

FOUND, FAILED = 1, 2
OUTPUTS = ("text", "json", "yaml", "sarif")


@click.command("analyze")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    help="Manifests to look at, instead of a mesh that runs. Can be repeated.",
)
@click.option(
    "--on-mesh", is_flag=True, help="Look at the manifests of -f as if they were applied to the mesh that runs."
)
@click.option("--fix", is_flag=True, help="Correct the manifests of -f where that is mechanical, and report the rest.")
@click.option("-n", "--namespace", default="", help="Report on objects of this namespace only.")
@click.option(
    "-S",
    "--suppress",
    "suppress",
    multiple=True,
    metavar="CODE[=KIND NS/NAME]",
    help="Do not report this code (Heddle's or istioctl's), or not for this object. Can be repeated.",
)
@click.option(
    "--fail-on",
    type=click.Choice([str(severity) for severity in Severity]),
    default=str(Severity.ERROR),
    show_default=True,
    help="End with 1 when there is a finding as bad as this, or worse.",
)
@mesh_options
@click.option("-o", "--output", type=click.Choice(OUTPUTS), default="text", show_default=True, help="How to print.")
def command(
    files: tuple[str, ...],
    on_mesh: bool,
    fix: bool,
    namespace: str,
    suppress: tuple[str, ...],
    fail_on: str,
    kubeconfig: str,
    output: str,
) -> None:
    """What is wrong and what is doubtful in the configuration, with the reason and the way out.

    Of the mesh that runs here, of the cluster, of manifests (-f), or of manifests as if they were applied (-f with
    --on-mesh). docs/analysis.md has all codes; the annotation galley.istio.io/analyze-suppress keeps codes quiet for
    an object.

    Exit code 0 without a finding as bad as --fail-on says, 1 with one, 2 when it could not be found out.
    """
    try:
        silent = [suppression(each) for each in suppress]
        if on_mesh and not files:
            raise InvalidInput("there are no manifests to apply", field="--on-mesh", hint="name them with -f")
        if fix and (not files or STANDARD_INPUT in files):
            raise InvalidInput("only files can be corrected", field="--fix", hint="name them with -f")
        placed, looked_at = _analysed(files, on_mesh, kubeconfig)
        if fix and _correct(kept(placed, silent, namespace, files_only=True)):
            placed, looked_at = _analysed(files, on_mesh, kubeconfig)
    except HeddleError as error:
        click.echo(f"heddle: {error}", err=True)
        raise click.exceptions.Exit(FAILED) from None
    reported = kept(placed, silent, namespace, files_only=on_mesh)
    click.echo(_rendered(reported, looked_at, output))
    if at_least(reported, fail_on):
        raise click.exceptions.Exit(FOUND)


def _analysed(files: tuple[str, ...], on_mesh: bool, kubeconfig: str) -> tuple[list[Placed], int]:
    """What is found, and in how many objects."""
    now = datetime.now(UTC)
    if not files:
        objects = live_objects(kubeconfig)
        return found(objects, complete=True, now=now), _count(objects)
    read = read_manifests(files)
    if read.unreadable:
        raise _unreadable(read.unreadable)
    if on_mesh:
        objects, _ = applied(live_objects(kubeconfig), read.documents, DEFAULT_NAMESPACE)
        return found(objects, read.documents, read.problems, complete=True, now=now), len(read.documents)
    return found(_of_files(read), read.documents, read.problems, complete=False, now=now), len(read.documents)


def _correct(placed: list[Placed]) -> bool:
    """Rewrites the files, and says what was corrected; whether anything was."""
    by_file: dict[str, list[Placed]] = {}
    for each in placed:
        by_file.setdefault(each.file, []).append(each)
    every: list[Placed] = []
    for file, found_there in by_file.items():
        path = Path(file)
        text, done = corrected(path.read_text(), found_there)
        if done:
            path.write_text(text)
            every += reversed(done)
    for each in every:
        click.echo(f"corrected: {line(each)}", err=True)
    return bool(every)


def _of_files(read: Manifests) -> Objects:
    return completed(document.raw for document in read.documents)


def _unreadable(files: tuple[Unreadable, ...]) -> InvalidInput:
    return InvalidInput("\n".join(str(finding) for finding in files))


def _count(objects: Objects) -> int:
    return sum(len(found) for kind, found in objects.items() if kind not in ("EndpointSlice", "Secret", "Node"))


def _rendered(reported: list[Placed], looked_at: int, output: str) -> str:
    if output == "sarif":
        return orjson.dumps(sarif(reported, version("heddle")), option=orjson.OPT_INDENT_2).decode()
    if output == "json":
        return orjson.dumps(as_json(reported, looked_at), option=orjson.OPT_INDENT_2).decode()
    if output == "yaml":
        return yaml.safe_dump(as_json(reported, looked_at), sort_keys=False, allow_unicode=True, width=120).rstrip()
    return text(reported, looked_at)
