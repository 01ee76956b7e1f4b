"""One API server for these tests: an installation is for a whole cluster, and its webhook refuses other tests' pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from install.inventory import read_inventories
from install.resources import CRD
from tests.cluster.api_server import ApiServer
from tests.cluster.install.objects import ISTIO_CRD
from tests.cluster.installing import eventually, find, gone, uninstall


@pytest.fixture
def api(install_server: ApiServer) -> Iterator[ApiServer]:
    """With no installation on it, before and after; definitions and namespace may be there.

    Definitions are half of what an API server does for an installation: tests that are about something else skip them.
    """
    yield install_server
    for owned in read_inventories(install_server.client):
        uninstall(install_server, f"--revision={owned.revision}")


@pytest.fixture
def bare(install_server: ApiServer) -> ApiServer:
    """With nothing of Heddle's or Istio's on it."""
    for revision in ("default", *(owned.revision for owned in read_inventories(install_server.client))):
        uninstall(install_server, "--purge", f"--revision={revision}")
    client = install_server.client
    of_istio = CRD.path("", ISTIO_CRD["metadata"]["name"])
    if find(client, of_istio):
        client.delete(of_istio)
        eventually(lambda: gone(client, of_istio))
    left = [raw["metadata"]["name"] for page in client.list(CRD.path()) for raw in page.items]
    assert not [name for name in left if name.endswith("heddle.dev")]
    return install_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need nothing to be there come last here: definitions are what takes an API server longest to make."""
    places = [place for place, item in enumerate(items) if Path(__file__).parent in item.path.parents]
    here = sorted((items[place] for place in places), key=_needs_nothing)
    for place, item in zip(places, here, strict=True):
        items[place] = item


def _needs_nothing(item: pytest.Item) -> bool:
    return "bare" in getattr(item, "fixturenames", ())
