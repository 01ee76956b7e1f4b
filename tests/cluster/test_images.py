"""The images on the node: the project's own, from its Dockerfile, and the samples' under their real names."""

from __future__ import annotations

from local.sandbox import PROJECT_ROOT
from tests.cluster.cluster import Cluster
from tests.cluster.images import HEDDLE
from tests.support.waiting import wait_for

BOOKINFO = PROJECT_ROOT / "samples" / "bookinfo" / "manifests" / "bookinfo.yaml"

ROLES = (
    "heddle-agent --help",
    "command -v heddle-init",
    "heddle --help",
    "$(dirname $(python -c 'import envoy; print(envoy.__path__[0])'))/envoy/_bin/envoy --version",
    "python -m webhook --help",
    "python -m ca --help",
    "python -m discovery --help",
    "iptables --version",
    "ip -V",
)


def test_every_role_of_the_projects_image_starts_in_a_restricted_namespace(cluster: Cluster) -> None:
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    main = {"name": "main", "image": HEDDLE, "command": ["sh", "-exc", "\n".join(ROLES)], "securityContext": security}
    with cluster.namespace({"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        pod = {"metadata": {"name": "roles"}, "spec": {"containers": [main], "restartPolicy": "Never"}}
        path = f"/api/v1/namespaces/{namespace}/pods"
        cluster.client.post(path, pod)
        wait_for(lambda: cluster.client.get(f"{path}/roles")["status"]["phase"] in ("Succeeded", "Failed"))
        log = cluster.kubectl("logs", f"--namespace={namespace}", "roles")
        assert cluster.client.get(f"{path}/roles")["status"]["phase"] == "Succeeded", log


def test_bookinfo_runs_without_a_mesh(cluster: Cluster) -> None:
    with cluster.namespace(prefix="bookinfo") as namespace:
        cluster.kubectl(
            "apply", "-f", "-", stdin=BOOKINFO.read_text().replace("namespace: bookinfo", f"namespace: {namespace}")
        )
        cluster.kubectl(
            "wait", f"--namespace={namespace}", "deployment", "--all", "--for=condition=Available", "--timeout=100s"
        )
        url = f"http://productpage.{namespace}.svc:9080/productpage"
        page = cluster.execute(namespace, "deploy/ratings-v1", "curl", "-sS", url)
        assert "The Comedy of Errors" in page
