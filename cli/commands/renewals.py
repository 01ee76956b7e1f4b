"""`heddle certificates renew`: new certificates now, whatever the schedule says."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from cli.cluster_mesh import ClusterMesh
from cli.commands.local import run_in_pod
from cli.control_namespace import mesh_options
from cli.mesh_access import connect
from cli.output import columns, output_option, show
from cli.pod_names import the_one
from cli.reach import cluster_asked
from mesh.errors import HeddleError, InvalidInput
from mesh.objects import PROXY_CONTAINER, Key

RENEW = ["heddle-agent", "renew"]
AT_ONCE = 8  # a thousand at a time would only wait for each other at the ca

Run = Callable[[Key, str, list[str]], str]


@click.command("renew")
@click.argument("pods", nargs=-1, metavar="[POD]...")
@click.option("--all", "everything", is_flag=True, help="Every pod that has a sidecar; of one namespace with -n.")
@click.option("-n", "--namespace", default="", help="The pods' namespace, where POD does not name it (NS/POD).")
@mesh_options
@output_option
def command(pods: tuple[str, ...], everything: bool, namespace: str, kubeconfig: str, output: str) -> None:
    """Let agents get new certificates now, each with a new key.

    The agent of each pod is told so in its own container: on a cluster by the user's right to `pods/exec`. Connections
    that are open go on. Leaves with 1 when one of them could not, and says which and why.
    """
    if bool(pods) == everything:
        raise InvalidInput("name the pods whose certificates are renewed, or all of them with --all")
    known, run = _mesh(kubeconfig, namespace)
    hint = "`heddle status` lists those that have a sidecar"
    chosen = sorted(known) if everything else [the_one(known, pod, namespace, hint) for pod in pods]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        renewed = list(pool.map(lambda pod: _renew(run, pod), chosen))
    show({"renewed": renewed}, output, _table)
    if any(one["error"] for one in renewed):
        raise click.exceptions.Exit(1)


def _mesh(kubeconfig: str, namespace: str) -> tuple[list[Key], Run]:
    """The pods that have a sidecar, and how to run a command in one."""
    cluster = cluster_asked(kubeconfig)
    if cluster is not None:
        on_cluster = ClusterMesh(cluster)
        return on_cluster.pods(namespace), on_cluster.run
    mesh = connect()
    proxies = mesh.discovery("/v1/status")["proxies"]
    known = [Key(proxy["namespace"], proxy["pod"]) for proxy in proxies]
    return [key for key in known if namespace in ("", key.namespace)], lambda *what: run_in_pod(mesh, *what)


def _renew(run: Run, pod: Key) -> dict[str, str]:
    try:
        answer = json.loads(run(pod, PROXY_CONTAINER, RENEW))
        return {"pod": str(pod), "old": answer["old"], "new": answer["new"], "error": ""}
    except HeddleError as error:
        return {"pod": str(pod), "old": "", "new": "", "error": str(error)}
    except (KeyError, TypeError, ValueError):
        return {"pod": str(pod), "old": "", "new": "", "error": "its agent did not say what it did"}


def _table(body: dict[str, Any]) -> str:
    return columns(
        ("pod", "old", "new"), [(one["pod"], one["old"], one["new"] or one["error"]) for one in body["renewed"]]
    )
