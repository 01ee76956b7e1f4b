"""`heddle certificates revoke`, `unrevoke` and `revoked`: what proxies and ca refuse although it was issued."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from ca.revocation import REASONS
from cli.ca_access import reach
from cli.commands.certificates import of_cluster, pod_of
from cli.control_namespace import mesh_options
from cli.on_cluster import confirm, yes_option
from cli.output import columns, output_option, show
from cli.reach import cluster_asked
from kube.client import Client
from mesh.errors import InvalidInput

PATH = "/v1/revocations"
NOT_LISTED = (
    "PROXIES DO NOT KNOW: the key of a root is not the ca's, so that no revocation list can be signed. "
    "What is revoked is not renewed, and is let in until it ends; rotate the root if that is too long."
)


@click.command("revoke")
@click.argument("pod", required=False, default="", metavar="[NS/POD]")
@click.option("--serial", default="", metavar="HEX", help="One certificate, of a workload or an intermediate.")
@click.option("--identity", default="", metavar="SPIFFE-ID", help="A workload's identity, and all its certificates.")
@click.option("--reason", type=click.Choice(REASONS), default="unspecified", show_default=True)
@yes_option
@mesh_options
@output_option
def revoke(pod: str, serial: str, identity: str, reason: str, yes: bool, kubeconfig: str, output: str) -> None:
    """Revoke a certificate, an identity, or the certificates of a pod.

    New connections of and to whoever shows what is revoked are refused by every proxy, within a second; connections
    that are open stay open. A revoked certificate cannot renew itself: a pod comes with its token and gets another, at
    once with `heddle certificates renew NS/POD`. A revoked identity gets nothing more until `unrevoke`.
    """
    named = [text for text in (pod, serial, identity) if text]
    if len(named) != 1:
        raise InvalidInput("exactly one of NS/POD, --serial and --identity says what", hint="see --help")
    if pod and pod.count("/") != 1:
        raise InvalidInput(f"{pod!r} does not say which namespace", hint=f"write default/{pod}")
    if identity:
        confirm(f"Every workload that runs as {identity} is cut off.", yes)
    cluster = cluster_asked(kubeconfig)
    known = _known(cluster, pod, identity) if cluster is not None else {}
    asked = {"do": "revoke", "pod": pod, "serial": serial, "identity": identity, "reason": reason, "serials": known}
    after = reach(kubeconfig).post(PATH, {name: value for name, value in asked.items() if value})
    if pod:
        click.echo(f"the pod itself needs another: heddle certificates renew {pod}", err=True)
    if not after.get("listed", True):
        click.echo(NOT_LISTED, err=True)
    show(after, output, table)


@click.command("unrevoke")
@click.argument("name", metavar="SERIAL|SPIFFE-ID")
@mesh_options
@output_option
def unrevoke(name: str, kubeconfig: str, output: str) -> None:
    """Take a serial or an identity off the list again."""
    kind = "identity" if "://" in name else "serial"
    show(reach(kubeconfig).post(PATH, {"do": "restore", kind: name}), output, table)


@click.command("revoked")
@mesh_options
@output_option
def revoked(kubeconfig: str, output: str) -> None:
    """What is revoked. A certificate that has ended needs no revocation and leaves the list in time."""
    show(reach(kubeconfig).get(PATH), output, table)


def table(body: dict[str, Any]) -> str:
    """One line for each serial and identity."""
    return columns(("revoked", "serials", "reason", "since"), [_row(entry) for entry in body["entries"]])


def _row(entry: dict[str, Any]) -> Sequence[str]:
    name = entry["identity"] or next(iter(entry["serials"]))
    since = datetime.fromtimestamp(entry["at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return name, str(len(entry["serials"])), entry["reason"], since


def _known(cluster: Client, pod: str, identity: str) -> dict[str, int]:
    """Certificates that the objects tell of, and when they end: the ca that is asked knows those that it issued."""
    known: dict[str, int] = {}
    for found in of_cluster(cluster, datetime.now(UTC).timestamp()):
        if found["identity"] == identity or (pod and pod_of(found) == pod):
            all_of_it = [{"serial": found["serial"], "expires": found["notAfter"]}, *found["earlier"]]
            known |= {one["serial"]: int(datetime.fromisoformat(one["expires"]).timestamp()) for one in all_of_it}
    return known
