"""`heddle analyze`: what is wrong and what is doubtful in manifests, in a mesh, or in manifests on top of a mesh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import orjson
import yaml

from cli.analysing.fixes import corrected
from cli.analysing.found import Placed, at_least, found, kept, suppression
from cli.analysing.plaintext import taken_by, under_strict
from cli.analysing.sound import of_files, sound_of
from cli.analysing.view import as_json, line, sarif, text
from cli.control_namespace import mesh_options
from cli.diffing.overlay import applied, key_of
from cli.manifest_files import STANDARD_INPUT, read_manifests
from cli.mesh_objects import live
from cli.proxies import reach_proxies
from local.offline import Objects
from mesh.analysis.model import Severity
from mesh.analysis.view import View
from mesh.checks import Finding as Unreadable
from mesh.errors import HeddleError, InvalidInput
from mesh.manifest import Document
from mesh.objects import Key
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
    help="Do not report this code (Heddle's or istioctl's), or not for these objects (*: any). Can be repeated.",
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

    Where -f with --on-mesh makes mutual TLS STRICT, the proxies of those pods are asked what they took in plain text,
    as heddle top does; on a cluster that takes the right to pods/exec.

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
        mesh = live(kubeconfig)
        return found(mesh.objects, complete=True, now=now, settings=mesh.settings), _count(mesh.objects)
    read = read_manifests(files)
    if read.unreadable:
        raise _unreadable(read.unreadable)
    if on_mesh:
        mesh = live(kubeconfig)
        sound, unsound = sound_of(read.documents)
        objects, _ = applied(mesh.objects, sound, DEFAULT_NAMESPACE)
        placed = found(
            objects,
            read.documents,
            read.problems,
            complete=True,
            now=now,
            settings=mesh.settings,
            plain_text=lambda view: _plain_text(view, read.documents, kubeconfig),
            more=unsound,
        )
        return placed, len(read.documents)
    completed, unsound = of_files(read.documents)
    return found(completed, read.documents, read.problems, complete=False, now=now, more=unsound), len(read.documents)


def _plain_text(view: View, documents: Iterable[Document], kubeconfig: str) -> Mapping[Key, int]:
    """Of the pods for which the manifests ask for STRICT."""
    policies = view.snapshot.of("PeerAuthentication")
    written = {key_of(each, DEFAULT_NAMESPACE) for each in documents if each.kind == "PeerAuthentication"}
    pods = under_strict(view, [policies[key] for key in written & policies.keys()])
    if not pods:
        return {}
    try:
        counts, silent = taken_by(reach_proxies(kubeconfig), pods)
    except HeddleError as error:
        counts, silent = {}, (str(error),)
    if silent:
        more = f", and so for {len(silent) - 1} more" if len(silent) > 1 else ""
        click.echo(f"warning: not known who takes requests in plain text: {silent[0]}{more}", err=True)
    return counts


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
