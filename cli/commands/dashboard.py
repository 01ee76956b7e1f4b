"""`heddle dashboard`: the live mesh as a page in a browser of this machine."""

from __future__ import annotations

import click

from cli.control_namespace import mesh_options
from cli.live.collector import Collector
from cli.live.server import Server
from cli.live.source import reach

PORT = 15033
EVERY_SECONDS = 2.0


@click.command("dashboard")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Of 127.0.0.1; 0 for any that is free.",
)
@mesh_options
def command(port: int, kubeconfig: str) -> None:
    """Draw the live mesh in a browser: workloads and what flows between them, certificates, rotation, changes.

    Serves one page at 127.0.0.1 until Ctrl-C. It needs nothing from any other machine, and nothing can be changed
    through it. `heddle top` shows the same in a terminal.
    """
    collector = Collector(reach(kubeconfig))
    with Server(port, collector.newest) as server:
        collector.follow(EVERY_SECONDS)
        click.echo(f"{server.url} shows the mesh until Ctrl-C")
        server.serve_forever()
