"""Where a picture comes from: the control plane's answers, and what each proxy has counted, asked in its own pod."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agent.istio_metrics import IstioMetrics
from cli.ca_access import Ca, ClusterCa, EmbeddedCa
from cli.cluster_mesh import ClusterMesh
from cli.commands import certificates, status
from cli.mesh_access import Mesh, connect
from cli.proxies import ClusterProxies, EmbeddedProxies, Proxies, Proxy
from cli.reach import cluster_asked
from kube.client import Client

METRICS = [
    "heddle-agent",
    "admin",
    "GET",
    "/stats/prometheus?filter=^istio[.](requests_total|request_duration|tcp_connections_opened)",
]
"""Envoy's own form of those of Istio's metrics that are looked at: the app is not asked, nor all that Envoy counts.
The filter is for Envoy's own names, which have points."""
ROTATION = "/v1/rotation"


class Source(Protocol):
    """Methods raise a HeddleError that says what is missing."""

    def status(self) -> Mapping[str, Any]:
        """What `heddle status` prints."""

    def certificates(self) -> Sequence[Mapping[str, Any]]:
        """What `heddle certificates` prints."""

    def rotation(self) -> Mapping[str, Any]:
        """What `heddle rotate status` prints."""

    def proxies(self) -> Sequence[Proxy]:
        """The pods that have one that runs."""

    def metrics(self, proxy: Proxy) -> str:
        """Istio's metrics of one, in Prometheus' text format."""


@dataclass(frozen=True, slots=True)
class Live:
    """A mesh that runs."""

    mesh: Mesh | ClusterMesh
    ca: Ca
    reached: Proxies
    cluster: Client | None

    def status(self) -> Mapping[str, Any]:
        return self.mesh.status() if isinstance(self.mesh, ClusterMesh) else status.read(self.mesh)

    def certificates(self) -> Sequence[Mapping[str, Any]]:
        if self.cluster is not None:
            return certificates.of_cluster(self.cluster, time.time())
        found: list[Mapping[str, Any]] = self.ca.get("/v1/certificates")["certificates"]
        return found

    def rotation(self) -> Mapping[str, Any]:
        body: Mapping[str, Any] = self.ca.get(ROTATION)
        return body

    def proxies(self) -> Sequence[Proxy]:
        return self.reached.listed()

    def metrics(self, proxy: Proxy) -> str:
        return istio_metrics(self.reached, proxy)


def istio_metrics(proxies: Proxies, proxy: Proxy) -> str:
    """Those of one proxy that are looked at, in Prometheus' text format."""
    rewrite = IstioMetrics(proxy.workload).rewriter()
    lines = proxies.run(proxy.pod, METRICS).encode().split(b"\n")
    return b"".join([*(rewrite(line + b"\n") for line in lines if line), rewrite(b"")]).decode(errors="replace")


def reach(kubeconfig: str) -> Source:
    """The mesh that runs here, or the cluster's. Unavailable when there is neither."""
    cluster = cluster_asked(kubeconfig)
    if cluster is None:
        mesh = connect()
        mesh.get("/status")  # no mesh is no picture: better said at once
        return Live(mesh, EmbeddedCa(mesh), EmbeddedProxies(mesh), None)
    of_cluster = ClusterMesh(cluster)
    _ = of_cluster.home
    return Live(of_cluster, ClusterCa(of_cluster), ClusterProxies(cluster), cluster)
