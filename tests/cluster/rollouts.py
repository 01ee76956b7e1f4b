"""What runs of bookinfo and of the control plane on a cluster, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.cluster.cluster import Cluster
from tests.cluster.installing import NAMESPACE as CONTROL
from tests.cluster.traffic import node_names

APP = "bookinfo"


def names(cluster: Cluster, kind: str, namespace: str, selector: str = "") -> list[str]:
    output = cluster.kubectl("get", kind, f"--namespace={namespace}", f"--selector={selector}", "--output=name")
    return [line.partition("/")[2] for line in output.split()]


def rolled_out(cluster: Cluster, namespace: str = APP) -> None:
    for name in names(cluster, "deployment", namespace):
        cluster.kubectl("rollout", "status", f"deployment/{name}", f"--namespace={namespace}", "--timeout=180s")


def pods_on(cluster: Cluster, node: str) -> set[tuple[str, str]]:
    """Namespace and app of those of bookinfo and of the control plane."""
    pods = cluster.client.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")["items"]
    here = [pod["metadata"] for pod in pods if pod["metadata"]["namespace"] in (APP, CONTROL)]
    return {(each["namespace"], each["labels"].get("app") or each["labels"]["istio"]) for each in here}


def scale(cluster: Cluster, replicas: int, name: str) -> None:
    cluster.kubectl("scale", f"deployment/{name}", f"--replicas={replicas}", f"--namespace={APP}")
    cluster.kubectl("rollout", "status", f"deployment/{name}", f"--namespace={APP}", "--timeout=120s")


def all_ready(cluster: Cluster, app: str) -> bool:
    pods = cluster.client.get(f"/api/v1/namespaces/{CONTROL}/pods?labelSelector=app%3D{app}")["items"]
    expected = len(node_names(cluster)) if app == "heddle-node" else 2
    ready = [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
    ]
    return len(ready) >= expected


def eventually(check: Callable[[], bool], what: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.5)
