"""`heddle diff`: what applying manifests would change in the proxies' configuration, before it is done."""

from __future__ import annotations

import click

from cli.control_namespace import mesh_options
from cli.diffing.overlay import applied, key_of
from cli.diffing.view import as_json, text
from cli.mesh_objects import Manifested, builder_of, events_of, live, manifests, unread
from cli.output import output_option, show
from discovery.compare.plans import differences, proxies
from local.offline import Objects, completed
from mesh.errors import HeddleError
from mesh.objects import Key
from mesh.validation import DEFAULT_NAMESPACE

DIFFERS, FAILED = 1, 2


@click.command("diff")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="What would be applied. Can be repeated.",
)
@click.option(
    "--base",
    "base_files",
    multiple=True,
    metavar="FILE|DIR",
    help="Compare with these manifests, as a cluster would run them, instead of a mesh that runs. Can be repeated.",
)
@click.option("--delete", is_flag=True, help="The objects of -f would be deleted, not applied.")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Of objects that name none.")
@mesh_options
@output_option
def command(
    files: tuple[str, ...],
    base_files: tuple[str, ...],
    delete: bool,
    namespace: str,
    kubeconfig: str,
    output: str,
) -> None:
    """What applying manifests would change in the proxies' configuration, before it is done.

    Compares the plans of all proxies of the mesh that runs here, of the cluster, or of --base, before and after. Equal
    changes of many proxies are told once, each with the object and field that it comes from.

    Exit code 0 without a difference, 1 with some, 2 when they could not be found out: as kubectl diff.
    """
    try:
        different = _compare(files, base_files, delete, namespace, kubeconfig, output)
    except HeddleError as error:
        click.echo(f"heddle: {error}", err=True)
        raise click.exceptions.Exit(FAILED) from None
    if different:
        raise click.exceptions.Exit(DIFFERS)


def _compare(
    files: tuple[str, ...], base_files: tuple[str, ...], delete: bool, namespace: str, kubeconfig: str, output: str
) -> bool:
    written = manifests(files, namespace)
    before: Objects
    after: Objects
    settings: Key | None = None
    notices: tuple[str, ...] = ()
    if base_files:
        base = manifests(base_files, namespace)
        before, after = base.objects, _offline(base, written, delete)
    else:
        mesh = live(kubeconfig)
        before, settings = mesh.objects, mesh.settings
        after, notices = applied(before, written.documents, namespace, delete=delete)
    builder = builder_of(before, settings)
    old = builder.build()
    for event in events_of(after):  # what is the same stays the same object
        builder.apply(event)
    new = builder.build()
    for sentence in unread(builder):
        click.echo(f"warning: {sentence}", err=True)
    found = differences(old, new)
    every = sorted({*proxies(old), *proxies(new)})
    show(as_json(found, every, notices), output, lambda _: text(found, every, notices))
    return bool(found)


def _offline(base: Manifested, written: Manifested, delete: bool) -> Objects:
    """The objects of the base with the others laid over them."""
    replaced = {(each.kind, key_of(each, written.namespace)) for each in written.documents}
    kept = [each.raw for each in base.documents if (each.kind, key_of(each, base.namespace)) not in replaced]
    return completed([*kept, *([] if delete else [each.raw for each in written.documents])], base.namespace)
