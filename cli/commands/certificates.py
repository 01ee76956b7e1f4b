"""`heddle certificates`: every SVID that was issued, and what is left of it.

Of the embedded mesh it reads the ca's ledger; of a cluster the WorkloadCertificates, with the reader's own rights.
"""

from __future__ import annotations

import importlib
import time
from datetime import datetime
from typing import Any, ClassVar

import click

from cli.control_namespace import mesh_options
from cli.mesh_access import connect
from cli.output import columns, duration, output_option, show
from cli.reach import cluster_asked
from kube.client import Client
from mesh.errors import MissingPrerequisite, NotFound

WORKLOAD_CERTIFICATES = "/apis/heddle.dev/v1/workloadcertificates"


class Subcommands(click.Group):
    """Imports a subcommand when it is called."""

    modules: ClassVar[dict[str, tuple[str, str, str]]] = {
        "renew": ("cli.commands.renewals", "command", "Let agents get new certificates now."),
        "revoke": ("cli.commands.revocations", "revoke", "Revoke a certificate, an identity, or those of a pod."),
        "revoked": ("cli.commands.revocations", "revoked", "What is revoked."),
        "unrevoke": ("cli.commands.revocations", "unrevoke", "Take a serial or an identity off the list again."),
        "verify-log": (
            "cli.commands.certificate_log",
            "command",
            "Check that the ca's audit log is as it was written.",
        ),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        module, name, _ = self.modules[cmd_name]
        found: click.Command = getattr(importlib.import_module(module), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.modules[name][2]) for name in self.list_commands(ctx)])


@click.group("certificates", cls=Subcommands, invoke_without_command=True)
@click.option("-n", "--namespace", default="", help="Only identities of this namespace.")
@click.option("--all", "everything", is_flag=True, help="Expired and, of the embedded mesh, replaced ones too.")
@mesh_options
@output_option
@click.pass_context
def command(context: click.Context, namespace: str, everything: bool, kubeconfig: str, output: str) -> None:
    """Every certificate issued: pod, serial, issuer, expiry, time to renewal.

    Of the embedded mesh if one runs here and no --kubeconfig is named, else of the cluster, whose objects tell of the
    newest certificate of each pod: the same as `kubectl get workloadcertificates -A`.
    """
    if context.invoked_subcommand is not None:
        return
    cluster = cluster_asked(kubeconfig)
    if cluster is not None:
        found = of_cluster(cluster, time.time())
    else:
        found = connect().ca("/v1/certificates" + ("?all" if everything else ""))["certificates"]
    chosen = [c for c in found if not namespace or f"/ns/{namespace}/" in c["identity"]]
    show({"certificates": chosen if everything else current(chosen)}, output, lambda v: table(v["certificates"]))


def of_cluster(client: Client, now: float) -> list[dict[str, Any]]:
    """What the WorkloadCertificates say, in the form in which the ca tells of its ledger.

    MissingPrerequisite where the kind is not installed.
    """
    try:
        return [_of_object(item, now) for page in client.list(WORKLOAD_CERTIFICATES) for item in page.items]
    except NotFound:
        raise MissingPrerequisite(
            f"the cluster at {client.address} knows no WorkloadCertificates: Heddle is not installed there",
            hint="install it with `heddle install`, or name another cluster with --kubeconfig",
        ) from None


def _of_object(certificate: dict[str, Any], now: float) -> dict[str, Any]:
    metadata, spec = certificate["metadata"], certificate["spec"]
    owner: dict[str, str] = next(iter(metadata.get("ownerReferences") or ()), {})
    return {
        "serial": spec["serial"],
        "identity": spec["identity"],
        "caller": spec.get("caller", ""),
        "pod": {"namespace": metadata["namespace"], "name": spec["pod"], "uid": owner.get("uid", "")},
        "node": spec.get("node", ""),
        "key": spec.get("key") or {},
        "issuer": spec.get("issuer", ""),
        "root": spec.get("root", ""),
        "replica": spec.get("replica", ""),
        "issuedAt": spec["issued"],
        "notAfter": spec["expires"],
        "state": spec["state"].lower(),
        "earlier": spec.get("earlier") or [],
        "secondsToRenewal": _seconds_to(spec.get("renewsAt") or spec["expires"], now),
        "secondsToExpiry": _seconds_to(spec["expires"], now),
    }


def _seconds_to(moment: str, now: float) -> int:
    return max(0, int(datetime.fromisoformat(moment).timestamp() - now))


def current(certificates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest certificate of each holder that has not expired."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for certificate in sorted(certificates, key=lambda c: str(c["issuedAt"])):
        if certificate["secondsToExpiry"] > 0:
            newest[certificate["identity"], pod_of(certificate)] = certificate
    return list(newest.values())


def table(certificates: list[dict[str, Any]]) -> str:
    """One line a certificate, in the order of identities."""
    return columns(
        ("pod", "identity", "serial", "issuer", "expires in", "renewal in"),
        [
            (
                pod_of(c) or "-",
                c["identity"],
                c["serial"],
                c["issuer"],
                duration(c["secondsToExpiry"]) if c["secondsToExpiry"] else "expired",
                duration(c["secondsToRenewal"]) if c["secondsToRenewal"] else "due",
            )
            for c in sorted(certificates, key=lambda c: (c["identity"], pod_of(c), c["issuedAt"]))
        ],
    )


def pod_of(certificate: dict[str, Any]) -> str:
    """`namespace/name` of the pod it was issued to; empty for the control plane's own."""
    pod = certificate.get("pod") or {}
    return f"{pod['namespace']}/{pod['name']}" if pod.get("name") else ""
