"""From one version to the next: what may follow what, and which workloads still run the former proxy. Pure but for the
listing of pods."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from install.resources import POD
from kube.client import Client
from mesh.errors import InvalidInput
from mesh.objects import PROXY_CONTAINER, SIDECAR_STATUS_ANNOTATION

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


def check_skew(installed: str, wanted: str) -> None:
    """InvalidInput unless `wanted` is the same minor version as `installed`, or the next: proxies of the former one
    are only tested with that."""
    before, after = _minor(installed), _minor(wanted)
    if before is None or after is None:
        return
    if after < before:
        raise InvalidInput(
            f"version {installed} is installed, and this is {wanted}: a downgrade is not tested",
            hint=f"use heddle {installed}, or --force",
        )
    if after[0] != before[0] or after[1] - before[1] > 1:
        between = f"{before[0]}.{before[1] + 1}"
        raise InvalidInput(
            f"version {installed} is installed, and this is {wanted}: not more than one minor version at a time",
            hint=f"upgrade to {between} first, or --force",
        )


@dataclass(frozen=True, slots=True)
class Behind:
    """Pods of a namespace whose proxy is of another image than the mesh's now."""

    namespace: str
    pods: int
    images: tuple[str, ...]


def behind(pods: Iterable[dict[str, Any]], image: str) -> list[Behind]:
    """Namespaces with injected pods that are not of `image`."""
    found: dict[str, list[str]] = {}
    for pod in pods:
        metadata, spec = pod["metadata"], pod["spec"]
        if SIDECAR_STATUS_ANNOTATION not in (metadata.get("annotations") or {}) or metadata.get("deletionTimestamp"):
            continue
        containers = (*(spec.get("initContainers") or ()), *spec["containers"])
        images = [container["image"] for container in containers if container["name"] == PROXY_CONTAINER]
        if images and images[0] != image:
            found.setdefault(metadata["namespace"], []).append(images[0])
    return [Behind(name, len(images), tuple(sorted(set(images)))) for name, images in sorted(found.items())]


def all_pods(client: Client) -> list[dict[str, Any]]:
    return [pod for page in client.list(POD.path()) for pod in page.items]


def _minor(version: str) -> tuple[int, int] | None:
    found = _VERSION.match(version)
    return (int(found[1]), int(found[2])) if found else None
