"""tests/cluster/load.py at work: a steady load in a process of its own, asked what it has counted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local.linux import die_with_parent

PROGRAM = Path(__file__).parents[1] / "cluster" / "load.py"


def load_command(url: str, rate: float, *tls: str) -> list[str]:
    """The program with its arguments: `rate` requests a second; `tls`: file of the roots, and the server's name."""
    return [sys.executable, str(PROGRAM), url, str(rate), *tls]


class SteadyLoad:
    """`command` as of `load_command`, or what runs that elsewhere."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
        )

    def take(self) -> dict[str, Any]:
        """What was counted since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counted: dict[str, Any] = json.loads(self._process.stdout.readline())
        return counted

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
