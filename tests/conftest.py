"""Fixtures for every test: a real API server, a real cluster, programs that not every machine has; a run's lanes."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

import structlog
from hypothesis import HealthCheck, settings

from tests.cluster.fixtures import (
    api_server,
    chromium,
    cluster,
    cluster_is_ours,
    fuzzer,
    go_federation,
    go_spiffe,
    install_server,
    module_api_server,
    own_api_server,
    pytest_runtest_protocol,
    pytest_runtest_setup,
    pytest_terminal_summary,
    softhsm,
)
from tests.lanes import (
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_teardown,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

__all__ = [
    "api_server",
    "chromium",
    "cluster",
    "cluster_is_ours",
    "fuzzer",
    "go_federation",
    "go_spiffe",
    "install_server",
    "module_api_server",
    "own_api_server",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_runtest_protocol",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "pytest_terminal_summary",
    "pytest_xdist_auto_num_workers",
    "pytest_xdist_make_scheduler",
    "softhsm",
]


def _standard_error() -> TextIO:
    """That of this moment for the test itself, which may look at it; that of the run for a thread of another's."""
    if threading.current_thread() is threading.main_thread():
        return sys.stderr
    return sys.__stderr__ or sys.stderr


structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(_standard_error()))

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
