"""`heddle rotate`: a new root for the trust domain, without a failed handshake. What happens is the ca's to decide."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from cli.ca_access import Ca, reach
from cli.control_namespace import mesh_options
from cli.on_cluster import confirm, yes_option
from cli.output import columns, duration, output_option, show
from cli.rotation import view
from cli.rotation.watch import follow
from mesh.errors import Conflict

PATH = "/v1/rotation"
WAITING = 3
RECENT_SECONDS = 3600.0

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group("rotate")
def command() -> None:
    """Give the trust domain a new root, step by step; nothing goes on before everyone has acknowledged.

    \b
    Phases: distribute (everyone trusts the new root), sign (its intermediates sign), renew (certificates are
    renewed, spread over a window), drain (no certificate of the old root is left), retire (the old root leaves
    every bundle), destroy (the old key is destroyed). `rollback` leads back from each but the last.

    \b
    Exit codes: 0 done, or all is well; 1 refused or failed; 2 wrong usage; 3 it still waits or is paused when
    --wait was over; 130 Ctrl-C, which ends the watching only: the rotation goes on.
    """


def seconds_of(_context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """`10m`, `90s`, `2h` or plain seconds, as seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)([smhd]?)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a duration: write it such as 90s, 10m or 2h", param=option)
    return int(match[1]) * _UNITS[match[2]]


def watch_options(command: Command) -> Command:
    """`--watch` and `--wait`."""
    command = click.option("--watch", "-w", is_flag=True, help="Show the progress until the rotation has ended.")(
        command
    )
    return click.option(
        "--wait",
        "wait",
        metavar="TIME",
        callback=seconds_of,
        help="The same, no longer than so long; exit code 3 if it has not ended by then.",
    )(command)


def exclude_option(command: Command) -> Command:
    """`--exclude NAMESPACE/POD`."""
    return click.option(
        "--exclude",
        multiple=True,
        metavar="NS/POD",
        help="Do not wait for this pod, which will never answer; what that breaks is said first. Can be repeated.",
    )(command)


@command.command("start")
@click.option("--window", metavar="TIME", callback=seconds_of, help="Spread the renewals over this time, such as 10m.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen and whom it would wait for (exit code 3).")
@click.option("--again", is_flag=True, help="Also when the last rotation ended less than an hour ago.")
@exclude_option
@watch_options
@yes_option
@mesh_options
@output_option
def start(
    window: int | None,
    dry_run: bool,
    again: bool,
    exclude: Sequence[str],
    watch: bool,
    wait: int | None,
    yes: bool,
    kubeconfig: str,
    output: str,
) -> None:
    """Start a rotation to a new root.

    While one is under way, or when one has just ended, say so and start nothing (exit code 0).
    """
    ca = reach(kubeconfig)
    before = ca.get(PATH)
    asked: dict[str, Any] = {"do": "start"} | ({"windowSeconds": window} if window is not None else {})
    if dry_run:
        return _try(ca, before, asked, output)
    if not view.is_idle(before):
        if view.is_back(before):
            raise Conflict(
                "a rotation is being rolled back, and another can start only after it",
                hint="see `heddle rotate status`",
            )
        click.echo("a rotation is under way already: it goes on", err=True)
        after = before
    elif not again and (since := _seconds_since_last(before)) is not None and since < RECENT_SECONDS:
        click.echo(f"a rotation ended {duration(since)} ago: nothing is started (another one with --again)", err=True)
        return _show(before, output)
    else:
        _check_names(exclude)
        confirm("The trust domain gets a new root, and every certificate is renewed.", yes)
        after = ca.post(PATH, asked)
    if exclude:
        after = _exclude(ca, after, exclude, yes)
    return watched(ca, after, output, watch=watch, wait=wait, goal="forward")


@command.command("status")
@exclude_option
@watch_options
@yes_option
@mesh_options
@output_option
def status(exclude: Sequence[str], watch: bool, wait: int | None, yes: bool, kubeconfig: str, output: str) -> None:
    """What phase it is in, who has acknowledged, and whom it waits for. Exit code 0 also while it waits."""
    ca = reach(kubeconfig)
    body = ca.get(PATH)
    if exclude:
        body = _exclude(ca, body, exclude, yes)
    watched(ca, body, output, watch=watch, wait=wait, goal=body["direction"])


@command.command("pause")
@mesh_options
@output_option
def pause(kubeconfig: str, output: str) -> None:
    """Stay in this phase, and go on with nothing, until `resume`. Certificates are issued as ever."""
    _show(reach(kubeconfig).post(PATH, {"do": "pause"}), output)


@command.command("resume")
@watch_options
@mesh_options
@output_option
def resume(watch: bool, wait: int | None, kubeconfig: str, output: str) -> None:
    """Go on after `pause`."""
    ca = reach(kubeconfig)
    body = ca.post(PATH, {"do": "resume"})
    watched(ca, body, output, watch=watch, wait=wait, goal=body["direction"])


@command.command("rollback")
@watch_options
@yes_option
@mesh_options
@output_option
def rollback(watch: bool, wait: int | None, yes: bool, kubeconfig: str, output: str) -> None:
    """Go back to the old root, by the same careful steps. Not possible once the old key is being destroyed."""
    ca = reach(kubeconfig)
    body = ca.get(PATH)
    if view.is_idle(body) or not view.is_back(body):
        if not view.is_idle(body):
            confirm(f"The rotation is in phase {body['phase']}, and goes back to the old root.", yes)
        body = ca.post(PATH, {"do": "rollback"})
    watched(ca, body, output, watch=watch, wait=wait, goal="back")


@command.command("finish")
@watch_options
@yes_option
@mesh_options
@output_option
def finish(watch: bool, wait: int | None, yes: bool, kubeconfig: str, output: str) -> None:
    """Do not wait for the end of the renewal window: renew at once what is left. Acknowledgements are still awaited."""
    ca = reach(kubeconfig)
    if not view.is_idle(ca.get(PATH)):
        confirm("All certificates of the old root are renewed at once.", yes)
    body = ca.post(PATH, {"do": "finish"})
    watched(ca, body, output, watch=watch, wait=wait, goal=body["direction"])


@command.command("intermediate")
@click.option("--dry-run", is_flag=True, help="Only say which replicas would.")
@mesh_options
@output_option
def intermediate(dry_run: bool, kubeconfig: str, output: str) -> None:
    """Each replica of the ca signs with another intermediate from now on. Certificates that are there stay valid."""
    ca = reach(kubeconfig)
    if dry_run:
        click.echo(f"would make another intermediate: {', '.join(ca.replicas())}")
        return
    show(
        ca.post_to_each("/v1/intermediate", {}),
        output,
        lambda found: columns(
            ("replica", "before", "now", "ends"),
            [(name, each["old"], each["new"], each["notAfter"]) for name, each in found.items()],
        ),
    )


@command.command("exclude")
@click.argument("pods", nargs=-1, required=True, metavar="NS/POD...")
@yes_option
@mesh_options
@output_option
def exclude_pods(pods: Sequence[str], yes: bool, kubeconfig: str, output: str) -> None:
    """Do not wait for these pods. What that breaks is said first."""
    ca = reach(kubeconfig)
    _show(_exclude(ca, ca.get(PATH), pods, yes), output)


@command.command("include")
@click.argument("pods", nargs=-1, required=True, metavar="NS/POD...")
@mesh_options
@output_option
def include_pods(pods: Sequence[str], kubeconfig: str, output: str) -> None:
    """Wait for these pods after all."""
    _check_names(pods)
    _show(reach(kubeconfig).post(PATH, {"do": "include", "pods": list(pods)}), output)


def _try(ca: Ca, before: Mapping[str, Any], asked: Mapping[str, Any], output: str) -> None:
    if not view.is_idle(before):
        click.echo("a rotation is under way already: nothing would be started", err=True)
        return _show(before, output)
    body = ca.post(PATH, {**asked, "dryRun": True})
    _show(body, output)
    if not (body.get("preflight") or {}).get("ready", True):
        raise click.exceptions.Exit(WAITING)
    return None


def _seconds_since_last(body: Mapping[str, Any]) -> float | None:
    """Since a rotation was completed; None where the last one was rolled back, or there was none."""
    direction, at = view.ended(body)
    if direction != "forward":
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()


def _exclude(ca: Ca, body: Mapping[str, Any], pods: Sequence[str], yes: bool) -> Any:
    _check_names(pods)
    already = set((body.get("acknowledged") or {}).get("excluded") or ())
    further = [pod for pod in pods if pod not in already]
    if not further:
        return body
    asked = {"do": "exclude", "pods": further}
    for sentence in ca.post(PATH, {**asked, "dryRun": True})["warnings"]:
        click.echo(sentence, err=True)
    confirm("Nobody waits for " + " and ".join(further) + " any more.", yes)
    return ca.post(PATH, asked)


def _check_names(pods: Sequence[str]) -> None:
    wrong = [pod for pod in pods if pod.count("/") != 1 or not all(pod.split("/"))]
    if wrong:
        raise click.BadParameter(f"{', '.join(wrong)}: write it as NAMESPACE/NAME, as `heddle rotate status` does")


def watched(ca: Ca, body: Mapping[str, Any], output: str, *, watch: bool, wait: int | None, goal: str) -> None:
    """Show `body`, after watching if that was asked for; leaves with 1 or 3 when it did not end as wanted."""
    if not watch and wait is None:
        return _show(body, output)
    running = not view.is_idle(body)
    if running:
        table = output == "table"
        terminal = table and sys.stdout.isatty()
        body = follow(lambda: ca.get(PATH), seconds=wait, terminal=terminal, say=click.echo if table else _to_error)
    if output != "table" or not running:
        _show(body, output)
    if not view.is_idle(body):
        raise click.exceptions.Exit(WAITING)
    if running:
        _judge(body, goal)
    return None


def _judge(body: Mapping[str, Any], goal: str) -> None:
    """Leave with 1 when the rotation that was watched ended the other way."""
    direction, _ = view.ended(body)
    click.echo("rolled back: the old root signs" if direction == "back" else "the rotation is complete", err=True)
    if direction != goal:
        raise click.exceptions.Exit(1)


def _to_error(text: str) -> None:
    click.echo(text, err=True)


def _show(body: Any, output: str) -> None:
    show(body, output, lambda value: view.status(value, datetime.now(UTC)))
