"""Fixtures for every test: a real API server, and a real cluster."""

from __future__ import annotations

from tests.cluster.fixtures import (
    _requirements,
    api_server,
    cluster,
    own_api_server,
    pytest_collection_finish,
    pytest_terminal_summary,
)

__all__ = [
    "_requirements",
    "api_server",
    "cluster",
    "own_api_server",
    "pytest_collection_finish",
    "pytest_terminal_summary",
]
