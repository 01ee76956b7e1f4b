"""The small service, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.process import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("service"))
    yield made
    stop(made)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("small"), small=True)
    yield made
    stop(made)


def stop(service: Service) -> None:
    """Nothing that was done to it ended its worker: gunicorn would have started another."""
    service.stop()
    assert len([line for line in service.lines() if "Booting worker" in line["event"]]) == 1
