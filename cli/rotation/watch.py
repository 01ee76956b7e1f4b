"""Follows a rotation to its end: bars that move on a terminal, one line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from cli.rotation import view
from cli.screen import Screen
from mesh.errors import Unavailable

POLL_SECONDS = 1.0
SILENCE_SECONDS = 120.0  # that the ca may be away, as while it is restarted, before that is an error


def follow(
    read: Callable[[], Mapping[str, Any]],
    *,
    seconds: float | None = None,
    terminal: bool = False,
    say: Callable[[str], None] = click.echo,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Mapping[str, Any]:
    """Show each change until the rotation has ended or `seconds` have passed: the last state.

    `terminal`: by bars that are drawn anew, else by lines, each given to `say`. Unavailable when the ca has not
    answered for two minutes.
    """
    began = heard = monotonic()
    screen = Screen() if terminal else None
    shown, body = "", None
    while True:
        try:
            body, heard = read(), monotonic()
        except Unavailable as error:
            if monotonic() - heard > SILENCE_SECONDS:
                raise
            text = f"the ca does not answer, trying again: {error.message}"
        else:
            text = view.line(body)
        if screen:
            screen.draw(view.status(body, datetime.now(UTC)) if body else text)
        elif text != shown:
            say(f"{datetime.now(UTC):%H:%M:%S} {text}")
            shown = text
        over = seconds is not None and monotonic() - began >= seconds
        if body is not None and (view.is_idle(body) or over):
            return body
        sleep(POLL_SECONDS if seconds is None else min(POLL_SECONDS, max(0.0, began + seconds - monotonic())))
