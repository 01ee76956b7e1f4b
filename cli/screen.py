"""A text on a terminal that is drawn over the one before."""

from __future__ import annotations

import shutil

import click

_UP_AND_CLEAR = "\x1b[{}F\x1b[J"  # ECMA-48: cursor to the beginning of the line so many up, erase below


class Screen:
    """Shows what fits: a line that was wrapped, or one that was scrolled away, could not be drawn over."""

    def __init__(self) -> None:
        self._lines = 0

    def draw(self, text: str) -> None:
        """`text` in place of what was drawn last."""
        size = shutil.get_terminal_size()
        lines = [line[: max(20, size.columns) - 1] for line in text.splitlines()][: max(5, size.lines) - 1]
        click.echo((_UP_AND_CLEAR.format(self._lines) if self._lines else "") + "\n".join(lines), color=True)
        self._lines = len(lines)
