"""Reaches the ca with the operator's rights: of the embedded mesh through its engine, of a cluster in the ca's pod."""

from __future__ import annotations

from typing import Any, Protocol

from cli.mesh_access import Mesh, connect


class Ca(Protocol):
    """Methods raise Unavailable when the ca cannot be reached, and what it answers as an error as just that."""

    def get(self, path: str) -> Any:
        """The JSON answer to `GET path`."""

    def post(self, path: str, body: object) -> Any:
        """The JSON answer to `POST path`."""


class EmbeddedCa:
    """The one of `heddle local`."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def get(self, path: str) -> Any:
        return self._mesh.ca(path)

    def post(self, path: str, body: object) -> Any:
        return self._mesh.ca_post(path, body)


def reach(kubeconfig: str) -> Ca:
    """The ca of the mesh that runs here, or of the cluster."""
    return EmbeddedCa(connect())
