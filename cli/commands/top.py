"""`heddle top`: what flows between workloads now, and how the mesh is, in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from cli.control_namespace import mesh_options
from cli.live.collector import Collector
from cli.live.screen import screen
from cli.live.source import reach
from cli.output import output_option, show
from cli.screen import Screen

EVERY_SECONDS = 2.0
ONCE_SECONDS = 6.0
"""Between the two readings of a single picture: Envoy adds up its histograms every 5 s."""

ONCE_ANSWER_SECONDS = 15.0
"""That a single picture waits for proxies: no later one will have what comes late."""


@click.command("top")
@click.option("--once", is_flag=True, help="Print one picture and end. Its rates are over six seconds or more.")
@click.option(
    "--every",
    "seconds",
    type=click.FloatRange(0.2, 60),
    default=EVERY_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="From one reading to the next.",
)
@mesh_options
@output_option
def command(once: bool, seconds: float, kubeconfig: str, output: str) -> None:
    """What flows between workloads now: requests a second, errors, p50 and p99, and whether by mutual TLS.

    And: proxies that are behind or do not answer, certificates that expire next, a rotation's progress, and how long
    the last changes took from the first proxy to the last. Every proxy is asked in its own pod; on a cluster that takes
    the right to `pods/exec`. Ctrl-C ends it. `-o json` and `-o yaml` print one picture, as --once does.
    """
    source = reach(kubeconfig)
    if once or output != "table":
        collector = Collector(source, answer_seconds=ONCE_ANSWER_SECONDS)
        collector.refresh()
        time.sleep(max(seconds, ONCE_SECONDS))
        show(collector.refresh(), output, screen)
        return
    collector = Collector(source)
    terminal = Screen() if sys.stdout.isatty() else None
    while True:
        began = time.monotonic()
        picture: Mapping[str, Any] = collector.refresh()
        if terminal:
            terminal.draw(screen(picture))
        else:
            click.echo(screen(picture) + "\n")
        time.sleep(max(0.0, began + seconds - time.monotonic()))
