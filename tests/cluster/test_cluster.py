"""The node level: pods run and reach each other as in any cluster, and nothing of it stays on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kube.client import Refused
from tests.cluster.cluster import Cluster
from tests.cluster.images import TOOLS
from tests.support.waiting import wait_for

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": TOOLS, "command": list(command), "securityContext": RESTRICTED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces pod security `restricted`, with a web server behind a Service and a client pod."""
    with cluster.namespace({"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        server = pod("web", "python3", "-m", "http.server", "8000", "--directory", "/etc")
        server["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": 8000}, "periodSeconds": 1}
        cluster.client.post(pods, server)
        cluster.client.post(pods, pod("client", "sleep", "infinity"))
        service = {
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
        }
        cluster.client.post(f"/api/v1/namespaces/{namespace}/services", service)
        for name in ("web", "client"):
            cluster.wait_pod(namespace, name)
        yield namespace


def test_a_service_answers_by_its_name_and_its_logs_are_read(cluster: Cluster, restricted: str) -> None:
    url = f"http://web.{restricted}.svc.cluster.local/hostname"
    wait_for(
        lambda: "web" in cluster.execute(restricted, "client", "curl", "-sS", "--retry", "5", "--retry-all-errors", url)
    )
    assert "GET /hostname" in cluster.kubectl("logs", f"--namespace={restricted}", "web")


def test_a_pod_reaches_itself_through_its_service(cluster: Cluster, restricted: str) -> None:
    assert cluster.execute(restricted, "web", "curl", "-sS", f"http://web.{restricted}.svc/hostname") == "web\n"


@pytest.mark.usefixtures("cluster_is_ours")
def test_pods_are_reached_from_the_node(cluster: Cluster, restricted: str) -> None:
    address = cluster.client.get(f"/api/v1/namespaces/{restricted}/services/web")["spec"]["clusterIP"]
    assert cluster.node is not None
    assert cluster.node.run("curl", "-sS", f"http://{address}/hostname") == "web\n"


@pytest.mark.usefixtures("cluster_is_ours")
def test_there_is_no_way_out_of_the_node(cluster: Cluster, restricted: str) -> None:
    with pytest.raises(AssertionError, match=r"Network is unreachable|No route to host|Couldn't connect"):
        cluster.execute(restricted, "client", "curl", "-sS", "--max-time", "5", "http://192.0.2.1/")


def test_an_init_container_with_net_admin_writes_the_rules_of_its_pod(cluster: Cluster) -> None:
    rule = "iptables -t nat -A OUTPUT -p tcp --dport 81 -j REDIRECT --to-ports 8000"
    init = {
        "name": "rules",
        "image": TOOLS,
        "command": ["sh", "-c", rule],
        "securityContext": {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
    }
    with cluster.namespace() as namespace:
        server = pod("web", "python3", "-m", "http.server", "8000", "--directory", "/etc", initContainers=[init])
        cluster.client.post(f"/api/v1/namespaces/{namespace}/pods", server)
        cluster.wait_pod(namespace, "web")
        command = ("curl", "-sS", "--retry", "5", "--retry-all-errors", "http://127.0.0.1:81/hostname")
        assert cluster.execute(namespace, "web", *command) == "web\n"


def test_a_restricted_namespace_refuses_net_admin(cluster: Cluster, restricted: str) -> None:
    wanted = pod("rules", "true")
    wanted["spec"]["containers"][0]["securityContext"] = RESTRICTED | {"capabilities": {"add": ["NET_ADMIN"]}}
    with pytest.raises(Refused, match="unrestricted capabilities"):
        cluster.client.post(f"/api/v1/namespaces/{restricted}/pods", wanted)
