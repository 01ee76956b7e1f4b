"""`heddle install`: Heddle on a Kubernetes cluster."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from cli.on_cluster import client_of, cluster_options, confirm, holder, operator_options, read_request, yes_option
from install.apply import Tools, install
from install.preflight import Choices, Findings, preflight
from install.printing import as_yaml, value_as_yaml
from install.render import Rendered, native_sidecars, render
from install.request import Request
from kube.client import Client


@click.command("install")
@operator_options
@click.option("--dry-run", is_flag=True, help="Print the objects; no cluster is asked.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.option("--adopt-crds", is_flag=True, help="Take over Istio's definitions that are on the cluster.")
@click.option("--skip-crds", is_flag=True, help="Leave all definitions as they are.")
@click.option("--force", is_flag=True, help="Beside another injector for the same namespaces, or to an older version.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until every pod is ready.")
@click.option("--timeout", "patience", default=300.0, show_default=True, metavar="SECONDS", help="For each stage.")
@yes_option
@cluster_options
def command(
    files: tuple[str, ...],
    assignments: tuple[str, ...],
    profile: str,
    revision: str,
    dry_run: bool,
    output: str,
    adopt_crds: bool,
    skip_crds: bool,
    force: bool,
    wait: bool,
    patience: float,
    yes: bool,
    kubeconfig: str,
) -> None:
    """Install Heddle on a Kubernetes cluster, or make the installation as asked for now.

    FILE is an IstioOperator, as for istioctl. What it says lies over the profile; what the installation no longer has
    is removed. Running it again changes nothing.
    """
    asked = read_request(files, assignments, profile, revision)
    rendered = render(asked.spec)
    if dry_run:
        click.echo(_printed(rendered, output), nl=False)
        return
    client = client_of(kubeconfig)
    choices = Choices(adopt_crds, skip_crds, force)
    findings = examine(client, rendered, asked, choices)
    confirm(question("Install", asked, rendered, client), yes)
    tools = Tools(client, click.echo, patience)
    install(tools, rendered, findings, value_as_yaml(asked.asked), holder("install"), wait=wait)
    click.echo(_done(rendered))


def examine(client: Client, rendered: Rendered, asked: Request, choices: Choices) -> Findings:
    """Preflight, told; leaves with 1 and every error when something is in the way."""
    native = native_sidecars(asked.spec)
    findings = preflight(client, rendered, choices, native_sidecars=native, now=datetime.now(UTC))
    for warning in findings.warnings:
        click.echo(f"warning: {warning}", err=True)
    for error in findings.errors:
        click.echo(f"error: {error}", err=True)
    if findings.errors:
        raise click.exceptions.Exit(1)
    return findings


def question(verb: str, asked: Request, rendered: Rendered, client: Client) -> str:
    """`Install Heddle 0.1.0, profile demo, into namespace istio-system of https://...?`"""
    revision = "" if rendered.revision == "default" else f", revision {rendered.revision}"
    where = f"namespace {rendered.namespace} of {client.address}"
    return f"{verb} Heddle {rendered.version}, profile {asked.spec.profile}{revision}, in {where}."


def _printed(rendered: Rendered, output: str) -> str:
    if output == "json":
        whole = {"apiVersion": "v1", "kind": "List", "items": rendered.objects}
        return json.dumps(whole, indent=2) + "\n"
    return as_yaml(rendered.objects)


def _done(rendered: Rendered) -> str:
    label = "istio-injection=enabled" if rendered.revision == "default" else f"istio.io/rev={rendered.revision}"
    return (
        "✔ Installed. Pods of a namespace get their sidecar once it is labelled:\n"
        f"    kubectl label namespace default {label}"
    )
