"""How results are shown: tables for people, JSON and YAML for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import yaml
from tabulate import tabulate

Command = TypeVar("Command", bound=Callable[..., Any])


def output_option(command: Command) -> Command:
    """`-o table|json|yaml` as the parameter `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to print.",
    )(command)


def show(value: Any, output: str, table: Callable[[Any], str]) -> None:
    """Print `value` as asked for; `table` makes the text for people."""
    if output == "json":
        click.echo(json.dumps(value, indent=2))
    elif output == "yaml":
        click.echo(yaml.safe_dump(value, sort_keys=False).rstrip())
    else:
        click.echo(table(value))


def columns(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns in kubectl's manner; a line that says so where there are no rows."""
    lines = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not lines:
        return "(none)"
    return tabulate(lines, headers=[h.upper() for h in headers], tablefmt="plain", disable_numparse=True)


def duration(seconds: float) -> str:
    """`95` -> `1m35s`, `90000` -> `1d1h`; the two largest units."""
    sign, left = ("-", -seconds) if seconds < 0 else ("", seconds)
    if left < 0.9995:  # what would round to a second is one
        return f"{sign}{round(left * 1000)}ms"
    left = max(1.0, left)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{int(count)}{unit}")
        if len(parts) == 2:
            break
    return sign + "".join(part for i, part in enumerate(parts) if i == 0 or not part.startswith("0"))


def moment(text: str) -> datetime | None:
    """The time that an RFC 3339 text names; None for an empty one."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def age(text: str, now: datetime | None = None) -> str:
    """How long ago the RFC 3339 time was; empty for none."""
    then = moment(text)
    return "" if then is None else duration(((now or datetime.now(UTC)) - then).total_seconds())
