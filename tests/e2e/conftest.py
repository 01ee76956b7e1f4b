"""One bookinfo mesh for all tests of this folder; they run in order and leave it as they found it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support.local_mesh import ROOT, LocalMesh, local_mesh

SAMPLE = ROOT / "samples" / "bookinfo"


@pytest.fixture(scope="session")
def bookinfo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    folder = tmp_path_factory.mktemp("bookinfo")
    shutil.copytree(SAMPLE / "manifests", folder / "manifests")
    with local_mesh(folder, folder / "manifests", SAMPLE / "images.yaml") as mesh:
        mesh.settle()
        yield mesh
