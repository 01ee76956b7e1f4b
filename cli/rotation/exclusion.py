"""What breaks when a pod is not waited for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def consequences(body: Mapping[str, Any], pods: Iterable[str]) -> list[str]:
    """One sentence a pod: what becomes of it if the rotation goes on without it."""
    missing = set((body.get("acknowledged") or {}).get("missing") or ())
    return [_of_one(pod, pod in missing) for pod in pods]


def _of_one(pod: str, is_missing: bool) -> str:
    if is_missing:
        return (
            f"{pod} has not said that it trusts the new root. Without it: as soon as the new root signs, {pod} refuses "
            f"every peer that has renewed; when the old root goes, every peer refuses {pod} too. It takes no part in "
            "the mesh from then on, until its pod is restarted."
        )
    return (
        f"{pod} is not among the first that are missing now. Without it: if it does not take up the new root and a "
        f"new certificate before the old root goes, it refuses its peers and they refuse it, until its pod is "
        "restarted."
    )


def check_names(pods: Iterable[str]) -> list[str]:
    """The names that are not `namespace/pod`."""
    return [pod for pod in pods if pod.count("/") != 1 or not all(pod.split("/"))]
