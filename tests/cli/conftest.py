"""A running mesh for commands, over the engine's real sockets with made-up pods and services behind them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.command_server import CommandServer


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandServer]:
    with tempfile.TemporaryDirectory(prefix="hm") as state:
        monkeypatch.setenv("HEDDLE_STATE", state)
        server = CommandServer(Path(state))
        yield server
        server.components.stop_all()
