"""Requests to a cluster's Services from outside of the mesh: from its node, or, where no node is ours, from a pod."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.images import TOOLS
from tests.cluster.installing import kubectl
from tests.support.steady_load import PROGRAM, SteadyLoad, load_command

POD = "load"
MOUNTED = "/load"

StartLoad = Callable[..., SteadyLoad]
"""Of a URL, requests a second and, for TLS, the server's name."""


@contextmanager
def outside(cluster: Cluster, namespace: str, roots: Path) -> Iterator[StartLoad]:
    """What starts loads. A pod for them would be in `namespace`, whose pods have no sidecar, on the first node by name.

    `roots`: a PEM file that loads by TLS trust.
    """
    if cluster.node is not None:
        inside = cluster.node.inside

        def on_the_node(url: str, rate: float, *name: str) -> SteadyLoad:
            return SteadyLoad(inside(load_command(url, rate, *((str(roots), *name) if name else ()))))

        yield on_the_node
        return
    files = [f"--from-file={file}" for file in (PROGRAM, roots)]
    cluster.kubectl("create", "configmap", POD, f"--namespace={namespace}", *files)
    cluster.client.post(f"/api/v1/namespaces/{namespace}/pods", _pod(node_names(cluster)[0]))
    cluster.wait_pod(namespace, POD)
    execute = [*kubectl(), f"--kubeconfig={cluster.kubeconfig}", "exec", "-i", f"--namespace={namespace}", POD, "--"]

    def in_the_pod(url: str, rate: float, *name: str) -> SteadyLoad:
        trusted = (f"{MOUNTED}/{roots.name}", *name) if name else ()
        return SteadyLoad([*execute, "python3", f"{MOUNTED}/{PROGRAM.name}", url, str(rate), *trusted])

    yield in_the_pod


def node_names(cluster: Cluster) -> list[str]:
    """In their order."""
    return sorted(node["metadata"]["name"] for node in cluster.client.get("/api/v1/nodes")["items"])


def _pod(node: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": TOOLS,
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "250m"}},  # or what it asks about would starve it
        "volumeMounts": [{"name": "files", "mountPath": MOUNTED}],
    }
    volumes = [{"name": "files", "configMap": {"name": POD}}]
    spec = {"nodeName": node, "containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}
    return {"metadata": {"name": POD}, "spec": spec}
