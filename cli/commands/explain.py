"""`heddle explain`: what a request meets on its way, and which object and field decides it."""

from __future__ import annotations

import click

from cli.control_namespace import mesh_options
from cli.explaining.asked import asked
from cli.explaining.view import as_json, text
from cli.mesh_objects import builder_of, live, manifests, unread
from cli.output import output_option, show
from discovery.explain.explain import explain
from discovery.explain.model import Result
from discovery.plan.index import index
from discovery.plan.memo import Scopes
from discovery.snapshots import SnapshotBuilder
from mesh.validation import DEFAULT_NAMESPACE


@click.command("explain")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO[:PORT][/PATH]")
@click.option("-n", "--namespace", default="", help="That of FROM, where it does not name it (NS/POD).")
@click.option("-X", "--request", "method", default="GET", show_default=True, help="The method.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header. Can be repeated.")
@click.option("--host", "authority", default="", help="The Host header, where it is not that of TO.")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    help="Explain these manifests, as a cluster would run them, instead of a mesh that runs. Can be repeated.",
)
@mesh_options
@output_option
def command(
    source: str,
    target: str,
    namespace: str,
    method: str,
    headers: tuple[str, ...],
    authority: str,
    files: tuple[str, ...],
    kubeconfig: str,
    output: str,
) -> None:
    """What a request meets on its way, and which object and field decides it.

    FROM is a pod: its name, the beginning of it, or NS/NAME; a gateway too, for requests that arrive there. TO is what
    the app would dial: a service's name, another host or an address, with or without http://.

    Told from the objects alone: of -f, of the mesh that runs here, or of the cluster, where it takes the right to list
    them. It tells what is asked for; `heddle status` tells whether every proxy has applied it.

    Exit code 0 when all such requests are served, or answered as a rule says; 3 when some or all are refused.
    """
    builder, scopes = _builder(files, namespace or DEFAULT_NAMESPACE, kubeconfig), Scopes()
    for sentence in unread(builder):
        click.echo(f"warning: {sentence}", err=True)
    snapshot = builder.build()
    request, alike = asked(
        snapshot,
        index(snapshot, scopes),
        source,
        target,
        namespace=namespace,
        method=method,
        headers=headers,
        authority=authority,
    )
    explained = explain(snapshot, request, scopes)
    show(as_json(explained, alike), output, lambda _: text(explained, alike))
    if any(branch.outcome.result is Result.REFUSED for branch in explained.branches):
        raise click.exceptions.Exit(3)


def _builder(files: tuple[str, ...], namespace: str, kubeconfig: str) -> SnapshotBuilder:
    if files:
        return builder_of(manifests(files, namespace).objects)
    mesh = live(kubeconfig)
    return builder_of(mesh.objects, mesh.settings)
