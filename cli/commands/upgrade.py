"""`heddle upgrade`: an installation to this version of heddle."""

from __future__ import annotations

import click

from cli.commands.install import examine, question
from cli.on_cluster import client_of, cluster_options, confirm, holder, operator_options, read_request, yes_option
from install.apply import Tools, install
from install.inventory import Inventory, read_inventories
from install.operator import DEFAULT_REVISION
from install.preflight import Choices
from install.printing import value_as_yaml
from install.render import proxy_image_of, render
from install.request import Request, read_operator, request
from install.upgrade import all_pods, behind, check_skew
from kube.client import Client
from mesh.errors import NotFound


@click.command("upgrade")
@operator_options
@click.option("--adopt-crds", is_flag=True, help="Take over Istio's definitions that are on the cluster.")
@click.option("--skip-crds", is_flag=True, help="Leave all definitions as they are.")
@click.option("--force", is_flag=True, help="Over more than one minor version, or back.")
@click.option("--timeout", "patience", default=300.0, show_default=True, metavar="SECONDS", help="For each stage.")
@yes_option
@cluster_options
def command(
    files: tuple[str, ...],
    assignments: tuple[str, ...],
    profile: str,
    revision: str,
    adopt_crds: bool,
    skip_crds: bool,
    force: bool,
    patience: float,
    yes: bool,
    kubeconfig: str,
) -> None:
    """Bring an installation to this version: definitions first, then the control plane, then gateways.

    Without -f, --set and --profile it stays as it was asked for when it was installed. Sidecars are of the former
    version until their pods are restarted; which those are is told at the end.
    """
    client = client_of(kubeconfig)
    former = _installed(client, revision or DEFAULT_REVISION)
    if files or assignments or profile:
        asked = read_request(files, assignments, profile, revision)
    else:
        asked = _as_before(former, revision)
    rendered = render(asked.spec)
    if not force:
        check_skew(former.version, rendered.version)
    findings = examine(client, rendered, asked, Choices(adopt_crds, skip_crds, force))
    verb = "Upgrade from" if former.version != rendered.version else "Apply anew, from"
    confirm(f"{verb} {former.version}: {question('install', asked, rendered, client)}", yes)
    tools = Tools(client, click.echo, patience)
    install(tools, rendered, findings, value_as_yaml(asked.asked), holder("upgrade"), wait=True)
    click.echo(f"✔ The control plane is version {rendered.version}.")
    for each in behind(all_pods(client), proxy_image_of(asked.spec)):
        click.echo(
            f"{each.pods} pods in namespace {each.namespace} have the proxy of {', '.join(each.images)}; to restart:"
        )
        click.echo(f"    kubectl -n {each.namespace} rollout restart deployment,statefulset,daemonset")


def _installed(client: Client, revision: str) -> Inventory:
    inventories = read_inventories(client)
    for each in inventories:
        if each.revision == revision:
            return each
    known = ", ".join(each.revision for each in inventories)
    hint = f"installed: {known}" if known else "use `heddle install`"
    raise NotFound(f"revision {revision} is not installed on {client.address}", hint=hint)


def _as_before(former: Inventory, revision: str) -> Request:
    """What was asked for when it was installed; a field that this version refuses is named."""
    source = f"ConfigMap {former.namespace}/heddle-install"
    asked = request([(source, read_operator(former.operator, source))], revision=revision)
    for warning in asked.warnings:
        click.echo(f"warning: {warning}", err=True)
    return asked
