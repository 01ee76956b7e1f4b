"""`heddle uninstall`: takes an installation away."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cli.on_cluster import client_of, cluster_options, confirm, holder, yes_option
from install.lock import Lock
from install.operator import DEFAULT_REVISION
from install.resources import NAMESPACE
from install.uninstall import Removal, injected_pods, plan_removal, uninstall, wait_gone
from kube.client import Client
from mesh.errors import NotFound


@click.command("uninstall")
@click.option("--revision", default=DEFAULT_REVISION, show_default=True, metavar="R", help="Which one.")
@click.option("--purge", is_flag=True, help="Also Istio's definitions with all objects in them, and the mesh's root.")
@click.option("--timeout", "patience", default=120.0, show_default=True, metavar="SECONDS")
@yes_option
@cluster_options
def command(revision: str, purge: bool, patience: float, yes: bool, kubeconfig: str) -> None:
    """Remove an installation from a Kubernetes cluster.

    Pods keep their sidecars, which go on with what they have until their certificates end: restart them afterwards.
    """
    client = client_of(kubeconfig)
    removal = plan_removal(client, revision, purge=purge)
    if not removal.objects:
        click.echo(f"Nothing of revision {revision} is installed on {client.address}.")
        return
    confirm(_question(removal, revision, client, purge), yes)
    namespace = removal.inventory.namespace if removal.inventory else ""
    if namespace and _exists(client, namespace):
        with Lock(client, namespace, holder("uninstall"), lambda: datetime.now(UTC)):
            uninstall(client, removal, click.echo)
    else:
        uninstall(client, removal, click.echo)
    left = wait_gone(client, removal.objects, patience)
    for reference in left:
        click.echo(f"… {reference} is still being deleted", err=True)
    if removal.kept:
        names = sorted({reference.kind for reference in removal.kept})
        click.echo(
            f"Left: {len(removal.kept)} objects that hold what is yours ({', '.join(names)}), and the mesh's root;"
        )
        click.echo("    `heddle uninstall --purge` removes them too")
    pods = injected_pods(client)
    if pods:
        told = ", ".join(f"{namespace} ({count})" for namespace, count in sorted(pods.items()))
        click.echo(f"Pods that still have a sidecar, until they are restarted: {told}")
        for namespace in sorted(pods):
            click.echo(f"    kubectl -n {namespace} rollout restart deployment,statefulset,daemonset")


def _question(removal: Removal, revision: str, client: Client, purge: bool) -> str:
    data = " With --purge every VirtualService, Gateway and so on is deleted too." if purge else ""
    return f"Remove {len(removal.objects)} objects of revision {revision} from {client.address}.{data}"


def _exists(client: Client, namespace: str) -> bool:
    try:
        client.get(NAMESPACE.path("", namespace))
    except NotFound:
        return False
    return True
