"""`heddle tag`: names for revisions."""

from __future__ import annotations

import click

from cli.on_cluster import client_of, cluster_options, yes_option
from cli.output import columns, output_option, show
from install.tags import Tag, list_tags, remove_tag, set_tag


@click.group("tag")
def command() -> None:
    """Names, such as prod, that namespaces use in istio.io/rev and that are pointed at a revision.

    A canary upgrade installs the new version as a revision and then moves the tag, instead of every namespace's label.
    """


@command.command("set")
@click.argument("tag")
@click.option("--revision", required=True, metavar="R", help="The revision that it points at.")
@click.option("--overwrite", is_flag=True, help="Also if it points at another.")
@cluster_options
def set_(tag: str, revision: str, overwrite: bool, kubeconfig: str) -> None:
    """Point TAG at a revision."""
    set_tag(client_of(kubeconfig), tag, revision, overwrite=overwrite)
    click.echo(
        f"✔ Tag {tag} points at revision {revision}. To use it, and to restart pods that have another's sidecar:"
    )
    click.echo(f"    kubectl label namespace NAMESPACE istio-injection- istio.io/rev={tag}")


@command.command("list")
@output_option
@cluster_options
def list_(output: str, kubeconfig: str) -> None:
    """Every tag, its revision, and the namespaces that use it."""
    tags = list_tags(client_of(kubeconfig))
    show([_json(tag) for tag in tags], output, lambda _: _table(tags))


@command.command("remove")
@click.argument("tag")
@yes_option
@cluster_options
def remove(tag: str, yes: bool, kubeconfig: str) -> None:
    """Remove TAG; with -y also while namespaces use it."""
    remove_tag(client_of(kubeconfig), tag, in_use=yes)
    click.echo(f"✔ Tag {tag} removed")


def _table(tags: list[Tag]) -> str:
    return columns(("tag", "revision", "namespaces"), [(t.name, t.revision, ",".join(t.namespaces)) for t in tags])


def _json(tag: Tag) -> dict[str, object]:
    return {"tag": tag.name, "revision": tag.revision, "namespaces": list(tag.namespaces)}
