"""The proxies of a mesh, for who looks into each: the embedded mesh's and a cluster's in one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cli.cluster_mesh import ClusterMesh
from cli.commands.local import run_in_pod
from cli.mesh_access import Mesh, connect
from cli.reach import cluster_asked
from kube.client import Client
from kube.source import list_path
from local.control_plane import PARTS
from local.network import NODE_ADDRESS
from mesh.identity import CONTROL_NAMESPACE
from mesh.objects import PROXY_CONTAINER, SIDECAR_STATUS_ANNOTATION, Key
from mesh.ports import CA, DISCOVERY, WEBHOOK
from mesh.workloads import Workload, workload_name, workload_of

_PORTS = {"heddle-ca": CA, "heddle-discovery": DISCOVERY, "heddle-webhook": WEBHOOK}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A pod with a sidecar or a gateway that runs. `port`: one that peers reach by mutual TLS; 0 for none. `workload`:
    what metrics call it."""

    pod: Key
    ip: str
    port: int
    workload: Workload


class Proxies(Protocol):
    """Methods raise a HeddleError that says what is missing."""

    def listed(self) -> list[Proxy]:
        """Those that run."""

    def control_plane(self) -> list[tuple[str, str, int]]:
        """Name, address and TLS port of each server of the control plane."""

    def run(self, pod: Key, argv: list[str]) -> str:
        """The standard output of a command in the pod's proxy container."""


class EmbeddedProxies:
    """Of `heddle local`."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def listed(self) -> list[Proxy]:
        return _running(self._mesh.get("/objects/Pod")["items"])

    def control_plane(self) -> list[tuple[str, str, int]]:
        return [(f"{CONTROL_NAMESPACE}/{part.account}", NODE_ADDRESS, part.port) for part in PARTS]

    def run(self, pod: Key, argv: list[str]) -> str:
        return run_in_pod(self._mesh, pod, PROXY_CONTAINER, argv)


class ClusterProxies:
    """Of a cluster, with the user's own rights."""

    def __init__(self, client: Client) -> None:
        self._client, self._mesh = client, ClusterMesh(client)

    def listed(self) -> list[Proxy]:
        return _running([raw for page in self._client.list(list_path("", "v1", "pods", "")) for raw in page.items])

    def control_plane(self) -> list[tuple[str, str, int]]:
        labels = {"labelSelector": "app.kubernetes.io/part-of=heddle"}
        pages = self._client.list(list_path("", "v1", "pods", self._mesh.home), labels)
        pods = [raw for page in pages for raw in page.items if _runs(raw)]
        return [
            (str(_key(raw)), raw["status"]["podIP"], _PORTS[app])
            for raw in pods
            if (app := (raw["metadata"].get("labels") or {}).get("app", "")) in _PORTS
        ]

    def run(self, pod: Key, argv: list[str]) -> str:
        return self._mesh.run(pod, PROXY_CONTAINER, argv)


def reach_proxies(kubeconfig: str) -> Proxies:
    """Those of the mesh that runs here, or of the cluster."""
    cluster = cluster_asked(kubeconfig)
    return ClusterProxies(cluster) if cluster else EmbeddedProxies(connect())


def _running(pods: list[dict[str, Any]]) -> list[Proxy]:
    found = [raw for raw in pods if _has_proxy(raw) and _runs(raw)]
    return [Proxy(_key(raw), raw["status"]["podIP"], _port(raw["spec"]), _workload(raw)) for raw in found]


def _workload(raw: Mapping[str, Any]) -> Workload:
    return workload_of(workload_name(raw), raw["metadata"]["namespace"], raw["metadata"].get("labels") or {})


def _key(raw: Mapping[str, Any]) -> Key:
    return Key(raw["metadata"]["namespace"], raw["metadata"]["name"])


def _has_proxy(raw: Mapping[str, Any]) -> bool:
    return SIDECAR_STATUS_ANNOTATION in (raw["metadata"].get("annotations") or {})


def _runs(raw: Mapping[str, Any]) -> bool:
    status = raw.get("status") or {}
    return status.get("phase") == "Running" and bool(status.get("podIP")) and "deletionTimestamp" not in raw["metadata"]


def _port(spec: Mapping[str, Any]) -> int:
    """A TCP port of the application. A gateway has none: what it serves are its hosts' certificates."""
    apps = [container for container in spec["containers"] if container["name"] != PROXY_CONTAINER]
    ports = [port for app in apps for port in app.get("ports") or () if port.get("protocol", "TCP") == "TCP"]
    if not apps:
        return 0
    return int(ports[0]["containerPort"]) if ports else 80
