"""One mesh for all tests of this folder: each test adds its case's manifest to it, and takes it out again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.behaviour.world import HERE, World
from tests.support.local_mesh import local_mesh

Put = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("behaviour")
    shutil.copytree(HERE / "manifests", folder / "manifests")
    with local_mesh(folder, folder / "manifests", HERE / "images.yaml") as mesh:
        world = World(mesh)
        world.settle()
        try:
            yield world
        finally:
            world.close()


@pytest.fixture
def case(world: World) -> Iterator[Put]:
    """Puts the test's documents in force (again, if called again); afterwards the world is as it was."""
    written = False

    def put(*documents: Mapping[str, Any], settle: bool = True) -> dict[str, Any]:
        nonlocal written
        written = True
        return world.write("case.yaml", *documents, settle=settle)

    yield put
    if written:
        world.write("case.yaml")


@pytest.fixture(scope="module")
def module_case(world: World) -> Iterator[Put]:
    """The same for all tests of a file."""
    yield lambda *documents: world.write("module.yaml", *documents)
    world.write("module.yaml")
