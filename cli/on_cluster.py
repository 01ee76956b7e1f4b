"""What the commands that change a cluster share: which cluster, is it wanted, and by whom."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from install.request import Request, read_operator, request
from kube.client import Client, connect
from mesh.errors import InvalidInput
from mesh.problems import ObjectErrors

Command = TypeVar("Command", bound=Callable[..., Any])

STANDARD_INPUT = "-"


def cluster_options(command: Command) -> Command:
    """`--kubeconfig`."""
    return click.option(
        "--kubeconfig",
        default="",
        metavar="FILE",
        help="The cluster; otherwise KUBECONFIG, or the pod's own.",
    )(command)


def yes_option(command: Command) -> Command:
    """`-y`."""
    return click.option("-y", "--skip-confirmation", "yes", is_flag=True, help="Do not ask.")(command)


def operator_options(command: Command) -> Command:
    """`-f`, `--set`, `--profile`, `--revision`: what an installation is made from."""
    for option in (
        click.option(
            "-f", "--filename", "files", multiple=True, metavar="FILE|-", help="An IstioOperator. Can be repeated."
        ),
        click.option(
            "--set", "assignments", multiple=True, metavar="PATH=VALUE", help="A field of its spec. Can be repeated."
        ),
        click.option("--profile", default="", metavar="NAME", help="minimal, default or demo."),
        click.option("--revision", default="", metavar="R", help="Install beside others, under names that end in -R."),
    ):
        command = option(command)
    return command


def read_request(files: Sequence[str], assignments: Sequence[str], profile: str, revision: str) -> Request:
    """What was asked for on the command line, checked; every error at once. Warnings are printed."""
    operators = [(name, read_operator(_read(name), name)) for name in files]
    try:
        asked = request(operators, assignments, profile=profile, revision=revision)
    except ObjectErrors as error:
        for problem in error.problems:
            click.echo(f"error: {error.about}: {problem}", err=True)
        raise click.exceptions.Exit(1) from None
    for warning in asked.warnings:
        click.echo(f"warning: {warning}", err=True)
    return asked


def client_of(kubeconfig: str) -> Client:
    """MissingPrerequisite when there is none, or the file is not there."""
    if kubeconfig and not Path(kubeconfig).is_file():
        raise InvalidInput(f"there is no kubeconfig {kubeconfig}", field="--kubeconfig")
    return connect(kubeconfig=kubeconfig)


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told not to; leaves with 1 on a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(f"{question} There is nobody to ask", hint="say yes with -y")
    if not click.confirm(f"{question} Proceed?"):
        raise click.exceptions.Exit(1)


def holder(command: str) -> str:
    """Who does it, for whoever comes second: `heddle install by ada on build-1, process 42`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.geteuid())
    return f"heddle {command} by {user} on {socket.gethostname()}, process {os.getpid()}"


def _read(name: str) -> str:
    if name == STANDARD_INPUT:
        return sys.stdin.read()
    try:
        return Path(name).read_text()
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror or error}", field="-f") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} is not UTF-8 text", field="-f") from None
