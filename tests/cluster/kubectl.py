"""kubectl, as people use it."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

from tests.cluster.api_server import ApiServer


class Said(NamedTuple):
    code: int
    out: str
    err: str


def kubectl(server: ApiServer, *arguments: str, text: str = "") -> str:
    """What it prints; it must succeed."""
    said = run(server, *arguments, text=text)
    assert said.code == 0, said
    return said.out


def run(server: ApiServer, *arguments: str, text: str = "") -> Said:
    """What came of it; `text` is its standard input."""
    command = ["kubectl", f"--kubeconfig={server.kubeconfig}", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return Said(done.returncode, done.stdout, done.stderr)
