"""The namespace that a cluster's control plane is in, for the commands that look into its pods and Secrets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from cli.on_cluster import cluster_options
from discovery.snapshots import DEFAULT_REVISION
from kube.client import Client, Refused
from kube.source import list_path
from mesh.annotations import REVISION
from mesh.errors import Conflict, InvalidInput
from mesh.identity import CONTROL_NAMESPACE
from mesh.istio.rules import is_dns_label

Command = TypeVar("Command", bound=Callable[..., Any])

VARIABLE = "ISTIOCTL_ISTIONAMESPACE"
_META = "heddle.control_namespace"
_DISCOVERY = {"labelSelector": "app=heddle-discovery,app.kubernetes.io/part-of=heddle"}


def mesh_options(command: Command) -> Command:
    """`--kubeconfig`, and istioctl's `-i`: which mesh is meant."""
    option = click.option(
        "-i",
        "--istioNamespace",
        metavar="NAMESPACE",
        expose_value=False,
        callback=_keep,
        help=f"The cluster's control plane; otherwise ${VARIABLE}, or where it is found.",
    )
    return cluster_options(option(command))


def control_namespace(client: Client) -> str:
    """The one that was named, else the one with pods of discovery, else `istio-system`.

    Conflict when there are several. Who may not list all pods has to name it, unless it is `istio-system`.
    """
    named = _named() or os.environ.get(VARIABLE, "")
    if named:
        return named
    try:
        found = _namespaces(client, CONTROL_NAMESPACE) or _namespaces(client)
    except Refused:
        return CONTROL_NAMESPACE
    if len(found) > 1:
        raise Conflict(f"there are control planes in {', '.join(sorted(found))}", hint="name one with -i")
    return next(iter(found), CONTROL_NAMESPACE)


def revision(client: Client, namespace: str) -> str:
    """Whose settings are meant: the default revision's where it is in the control plane's namespace, or where one may
    not look; else those of the one that is there, of several the first by name."""
    try:
        labels = [raw["metadata"].get("labels") or {} for raw in _pods(client, namespace)]
    except Refused:
        return DEFAULT_REVISION
    found = sorted({each.get(REVISION, DEFAULT_REVISION) for each in labels})
    return DEFAULT_REVISION if DEFAULT_REVISION in found else next(iter(found), DEFAULT_REVISION)


def _namespaces(client: Client, namespace: str = "") -> set[str]:
    return {raw["metadata"]["namespace"] for raw in _pods(client, namespace)}


def _pods(client: Client, namespace: str) -> Iterator[dict[str, Any]]:
    """Discovery's."""
    for page in client.list(list_path("", "v1", "pods", namespace), _DISCOVERY):
        yield from page.items


def _keep(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not is_dns_label(value):
        raise InvalidInput(f"{value!r} is not the name of a namespace", field="--istioNamespace")
    context.meta[_META] = value


def _named() -> str:
    context = click.get_current_context(silent=True)
    return str(context.meta.get(_META, "")) if context else ""
