"""Fixtures for every test: a real API server, and a real cluster."""

from __future__ import annotations

from tests.cluster.fixtures import (
    api_server,
    cluster,
    module_api_server,
    own_api_server,
    pytest_collection_finish,
    pytest_runtest_setup,
    pytest_terminal_summary,
)

__all__ = [
    "api_server",
    "cluster",
    "module_api_server",
    "own_api_server",
    "pytest_collection_finish",
    "pytest_runtest_setup",
    "pytest_terminal_summary",
]
