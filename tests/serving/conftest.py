"""The small service, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.process import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("service"))
    yield made
    made.stop()
