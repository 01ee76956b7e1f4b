"""Manifests and numbers that the benches on a running local mesh share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

NAMESPACE = "bench"
IMAGES = """images:
  - match: bench/fixed:*
    command: [python, {apps}/fixed.py]
    args: ["8080", "8081"]
  - match: bench/idle:*
    command: [sleep, infinity]
"""


def namespace() -> dict[str, Any]:
    meta = {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def server(name: str, replicas: int = 1, annotations: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """A Service and a Deployment of the fixed server: port 80 is its 8080."""
    labels = {"app": name, "version": "v1"}
    container = {"name": "app", "image": "bench/fixed:1", "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": labels, "annotations": annotations or {}}, "spec": {"containers": [container]}}
    meta = {"name": name, "namespace": NAMESPACE}
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
    ]


def write(folder: Path, objects: Sequence[dict[str, Any]]) -> tuple[Path, Path]:
    """The manifests' directory and the images file."""
    manifests = folder / "manifests"
    manifests.mkdir()
    (manifests / "world.yaml").write_text(yaml.safe_dump_all(objects))
    images = folder / "images.yaml"
    images.write_text(IMAGES.format(apps=Path(__file__).resolve().parent / "apps"))
    return manifests, images


def quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
