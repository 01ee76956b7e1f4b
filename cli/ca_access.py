"""Reaches the ca with the operator's rights: of the embedded mesh through its engine, of a cluster in the ca's pods."""

from __future__ import annotations

from typing import Any, Protocol

from cli.cluster_mesh import ClusterMesh
from cli.mesh_access import Mesh, connect
from cli.reach import cluster_asked


class Ca(Protocol):
    """Methods raise Unavailable when the ca cannot be reached, and what it answers as an error as just that."""

    def get(self, path: str) -> Any:
        """The JSON answer to `GET path`."""

    def post(self, path: str, body: object) -> Any:
        """The JSON answer to `POST path`."""

    def replicas(self) -> list[str]:
        """Their names."""

    def post_to_each(self, path: str, body: object) -> dict[str, Any]:
        """The JSON answer of every replica to `POST path`, by its name."""


class EmbeddedCa:
    """The one of `heddle local`."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def get(self, path: str) -> Any:
        return self._mesh.ca(path)

    def post(self, path: str, body: object) -> Any:
        return self._mesh.ca_post(path, body)

    def replicas(self) -> list[str]:
        return ["ca"]

    def post_to_each(self, path: str, body: object) -> dict[str, Any]:
        return {"ca": self.post(path, body)}


class ClusterCa:
    """That of a cluster: any of its replicas, which share their state."""

    def __init__(self, mesh: ClusterMesh) -> None:
        self._mesh = mesh

    def get(self, path: str) -> Any:
        return self._mesh.ask_ca(self._mesh.ca_pods()[0], "GET", path)

    def post(self, path: str, body: object) -> Any:
        return self._mesh.ask_ca(self._mesh.ca_pods()[0], "POST", path, body)

    def replicas(self) -> list[str]:
        return [pod.name for pod in self._mesh.ca_pods()]

    def post_to_each(self, path: str, body: object) -> dict[str, Any]:
        return {pod.name: self._mesh.ask_ca(pod, "POST", path, body) for pod in self._mesh.ca_pods()}


def reach(kubeconfig: str) -> Ca:
    """The ca of the mesh that runs here, or of the cluster."""
    cluster = cluster_asked(kubeconfig)
    return ClusterCa(ClusterMesh(cluster)) if cluster else EmbeddedCa(connect())
