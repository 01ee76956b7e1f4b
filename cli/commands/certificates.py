"""`heddle certificates`: every SVID that was issued, and what is left of it."""

from __future__ import annotations

from typing import Any

import click

from cli.mesh_access import connect
from cli.output import columns, duration, output_option, show


@click.command("certificates")
@click.option("-n", "--namespace", default="", help="Only identities of this namespace.")
@click.option("--all", "everything", is_flag=True, help="Expired and replaced certificates too.")
@output_option
def command(namespace: str, everything: bool, output: str) -> None:
    """Every certificate issued: pod, serial, issuer, expiry, time to renewal."""
    found: list[dict[str, Any]] = connect().ca("/v1/certificates" + ("?all" if everything else ""))["certificates"]
    chosen = [c for c in found if not namespace or f"/ns/{namespace}/" in c["identity"]]
    show({"certificates": chosen if everything else current(chosen)}, output, lambda v: table(v["certificates"]))


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
