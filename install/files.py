"""The files of `manifests/`: what install applies, before an IstioOperator changes it.

A folder's kustomization.yaml says what belongs to it, so that `kubectl apply -k` and `heddle install` read the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mesh.errors import MissingPrerequisite
from mesh.manifest import read_manifest
from mesh.yaml_values import load

ROOT = Path(__file__).resolve().parents[1] / "manifests"
KUSTOMIZATION = "kustomization.yaml"

Raw = dict[str, Any]


def folder(name: str, *, deep: bool = True) -> list[Raw]:
    """The objects of `manifests/<name>` in the order of its kustomization; `deep`: of folders in it too."""
    return list(_objects(ROOT / name, deep))


def profile(name: str) -> Raw:
    """The IstioOperator of a profile, as plain values."""
    found: Raw = load(_text(ROOT / "profiles" / name / "profile.yaml"))
    return found


def _objects(place: Path, deep: bool) -> Iterator[Raw]:
    said = load(_text(place / KUSTOMIZATION))
    for generator in said.get("configMapGenerator", ()):  # before the pods that have them for volumes
        yield _config_map(place, generator)
    for name in said["resources"]:
        part = (place / name).resolve()
        if not part.is_dir():
            yield from _read(part)
        elif deep:
            yield from _objects(part, deep)


def _config_map(place: Path, generator: Raw) -> Raw:
    """What kustomize makes of files that other programs read as they are, with the options that manifests/ uses."""
    meta = {name: generator[name] for name in ("name", "namespace")}
    labels = dict(generator["options"]["labels"])
    data = {Path(name).name: _text(place / name) for name in generator["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "labels": labels}, "data": data}


def _read(file: Path) -> list[Raw]:
    return [document.raw for document in read_manifest(_text(file), str(file)).documents]


@lru_cache(maxsize=256)
def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise MissingPrerequisite(
            f"{file} cannot be read: {error.strerror}", hint="reinstall heddle: its manifests are part of the package"
        ) from None
