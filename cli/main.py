"""Entry point of `heddle`: finds the subcommand, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from mesh.errors import HeddleError

COMMANDS = {
    "analyze": (
        "cli.commands.analyze",
        "What is wrong and what is doubtful in the configuration, with the reason and the way out.",
    ),
    "certificates": (
        "cli.commands.certificates",
        "Every certificate issued: pod, serial, issuer, expiry, time to renewal.",
    ),
    "config": ("cli.commands.config", "What the Envoy of POD runs: listeners, routes, clusters or endpoints."),
    "demo": (
        "cli.commands.demo",
        "Start the mesh on samples/bookinfo, drive traffic, tell what happens, and take everything down again.",
    ),
    "dashboard": (
        "cli.commands.dashboard",
        "Draw the live mesh in a browser: workloads and what flows between them, certificates, rotation, changes.",
    ),
    "diff": (
        "cli.commands.diff",
        "What applying manifests would change in the proxies' configuration, before it is done.",
    ),
    "install": (
        "cli.commands.install",
        "Install Heddle on a Kubernetes cluster, or make the installation as asked for now.",
    ),
    "doctor": (
        "cli.commands.doctor",
        "Look at an installation on a cluster: what is wrong, what it means, and what to do.",
    ),
    "explain": (
        "cli.commands.explain",
        "What a request meets on its way, and which object and field decides it.",
    ),
    "inject": ("cli.commands.inject", "Print manifests with the sidecar in each pod that gets one."),
    "local": ("cli.commands.local", "A mesh on this machine, from Kubernetes manifests, without Kubernetes."),
    "rotate": (
        "cli.commands.rotate",
        "Give the trust domain a new root, step by step; nothing goes on before everyone has acknowledged.",
    ),
    "status": (
        "cli.commands.status",
        "Every proxy: what it has applied against what is current, per type, and what is wrong in the configuration.",
    ),
    "tag": (
        "cli.commands.tag",
        "Names, such as prod, that namespaces use in istio.io/rev and that are pointed at a revision.",
    ),
    "top": (
        "cli.commands.top",
        "What flows between workloads now: requests a second, errors, p50 and p99, and whether by mutual TLS.",
    ),
    "trust": (
        "cli.commands.trust",
        "What the mesh trusts: import a root, export the bundle, see who would fail without a root.",
    ),
    "uninstall": ("cli.commands.uninstall", "Remove an installation from a Kubernetes cluster."),
    "upgrade": (
        "cli.commands.upgrade",
        "Bring an installation to this version: definitions first, then the control plane, then gateways.",
    ),
    "validate": ("cli.commands.validate", "Check Istio's kinds without a cluster."),
}
"""Each subcommand's module, with `command` in it, and the first sentence of its help."""


class Commands(click.Group):
    """Imports a subcommand when it is called: the list of them needs none, and some need Linux."""

    def __init__(self, modules: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        command: click.Command = importlib.import_module(self._modules[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._modules[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=Commands, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="heddle")
def heddle() -> None:
    """Heddle: a service mesh for stock Envoy that speaks Istio's APIs.

    Start with `heddle demo`, or with `heddle local up -f DIR` on manifests of your own.
    """


def main() -> None:
    """Run the command line; 1 for an error of the user's or the mesh's, 130 after Ctrl-C."""
    try:
        code = heddle(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except HeddleError as error:
        click.echo(f"heddle: {error}", err=True)
        code = 1
    except BrokenPipeError:
        code = 141  # the reader of our output has gone, as with `| head`
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
