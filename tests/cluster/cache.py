"""The directory outside the tree in which builds, images and the state of running clusters are."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def directory(name: str = "") -> Path:
    """`name` in the cache, made if need be. HEDDLE_CLUSTER_CACHE says where the cache is."""
    chosen = os.environ.get("HEDDLE_CLUSTER_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = (Path(chosen) if chosen else home / "heddle-cluster") / name
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time makes what is called `name`."""
    with (directory("locks") / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
