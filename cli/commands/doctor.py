"""`heddle doctor`: what is wrong with an installation, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from cli.on_cluster import client_of, cluster_options
from cli.output import output_option, show
from install.doctor import Finding, Severity, diagnose, gather


@click.command("doctor")
@output_option
@cluster_options
def command(output: str, kubeconfig: str) -> None:
    """Look at an installation on a cluster: what is wrong, what it means, and what to do.

    Exit code 0 when nothing is wrong (warnings are allowed), otherwise 3.
    """
    findings = diagnose(gather(client_of(kubeconfig)), datetime.now(UTC))
    show([finding.as_json() for finding in findings], output, lambda _: _text(findings))
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise click.exceptions.Exit(3)


def _text(findings: Sequence[Finding]) -> str:
    if not findings:
        return "✔ Nothing is wrong."
    lines = []
    for finding in findings:
        lines.append(f"{finding.severity.upper()} {finding.about}: {finding.message}")
        lines += [f"    {line}" for line in finding.way_out]
    return "\n".join(lines)
