"""Fixtures for every test: a real API server, a real cluster, and programs that not every machine has."""

from __future__ import annotations

from tests.cluster.fixtures import (
    api_server,
    cluster,
    fuzzer,
    go_federation,
    go_spiffe,
    module_api_server,
    own_api_server,
    pytest_collection_finish,
    pytest_runtest_setup,
    pytest_terminal_summary,
)

__all__ = [
    "api_server",
    "cluster",
    "fuzzer",
    "go_federation",
    "go_spiffe",
    "module_api_server",
    "own_api_server",
    "pytest_collection_finish",
    "pytest_runtest_setup",
    "pytest_terminal_summary",
]
