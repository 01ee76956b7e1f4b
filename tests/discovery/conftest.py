"""One discovery process for the tests of a module, with the small mesh anew for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.discovery.harness import Cluster, DiscoveryProcess, small_mesh


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, DiscoveryProcess]]:
    with Cluster() as cluster, DiscoveryProcess(cluster, tmp_path_factory.mktemp("discovery")) as discovery:
        yield cluster, discovery


@pytest.fixture
def cluster(started: tuple[Cluster, DiscoveryProcess]) -> Cluster:
    """The small mesh anew; discovery knows it."""
    cluster, discovery = started
    discovery.caught_up(cluster.reset(small_mesh()))
    return cluster


@pytest.fixture
def discovery(cluster: Cluster, started: tuple[Cluster, DiscoveryProcess]) -> DiscoveryProcess:
    """The process of the module."""
    return started[1]
