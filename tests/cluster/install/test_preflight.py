"""What is refused before anything is made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from install.preflight import Choices, preflight
from install.render import render
from install.request import request
from install.resources import MUTATING, NAMESPACE
from tests.cluster.api_server import ApiServer
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import find, heddle, install


def test_without_rights_nothing_is_changed_and_each_is_named(api: ApiServer, tmp_path: Path) -> None:
    with api.namespace() as namespace:
        client = api.as_service_account(namespace, "nobody", tmp_path)
        found = preflight(client, render(request([]).spec), Choices(), native_sidecars=True, now=datetime.now(UTC))
    (error,) = found.errors
    for right in ("patch customresourcedefinitions", f"create deployments in {HOME}", "create clusterroles"):
        assert right in error.message
    assert "cluster-admin" in str(error)


def test_rights_that_one_does_not_have_cannot_be_given(bare: ApiServer, tmp_path: Path) -> None:
    """Kubernetes refuses a role that allows more than its maker may; preflight tells, before anything is made."""
    with bare.namespace() as namespace:
        groups = sorted({raw["apiVersion"].rpartition("/")[0] for raw in render(request([]).spec).objects})
        rules = [{"apiGroups": [*groups, "coordination.k8s.io"], "resources": ["*"], "verbs": ["*"]}]
        rules.append({"apiGroups": ["authorization.k8s.io"], "resources": ["*"], "verbs": ["create"]})
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "most"}}
        rules[0]["verbs"] = ["get", "list", "watch", "create", "update", "patch", "delete"]
        roles = "/apis/rbac.authorization.k8s.io/v1"
        bare.client.apply(f"{roles}/clusterroles/most", role | {"rules": rules})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "most"}
        subject = {"kind": "ServiceAccount", "name": "most", "namespace": namespace}
        binding = {**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]}
        bare.client.apply(f"{roles}/clusterrolebindings/most", binding)
        client = bare.as_service_account(namespace, "most", tmp_path)
        found = preflight(client, render(request([]).spec), Choices(), native_sidecars=True, now=datetime.now(UTC))
    assert any("ClusterRole heddle-ca is refused" in str(error) for error in found.errors)
    assert find(bare.client, NAMESPACE.path("", HOME)) is None


def test_what_kubernetes_refuses_is_told_before_anything_is_made(bare: ApiServer) -> None:
    ran = heddle(bare, "install", "-y", "--set", "components.pilot.k8s.affinity.nodeAfinity={}", "--profile=minimal")
    assert ran.code == 1
    assert f"Deployment {HOME}/heddle-discovery is refused" in ran.err
    assert "nodeAfinity" in ran.err
    assert find(bare.client, NAMESPACE.path("", HOME)) is None


def test_another_injector_for_the_same_namespaces_is_refused(api: ApiServer) -> None:
    configuration = {
        "apiVersion": MUTATING.api_version,
        "kind": MUTATING.kind,
        "metadata": {"name": "istio-sidecar-injector", "labels": {"istio.io/rev": "default"}},
    }
    api.client.post(MUTATING.path(), configuration)
    try:
        ran = heddle(api, "install", "-y", "--no-wait")
        assert ran.code == 1
        assert "istio-sidecar-injector injects Istio's sidecar into the same namespaces" in ran.err
        ran = install(api, "--skip-crds", "--revision=canary")
        assert "no namespace may ask for both" in ran.err
    finally:
        api.client.delete(MUTATING.path("", "istio-sidecar-injector"))


def test_the_node_agent_cannot_be_where_pod_security_is_restricted(bare: ApiServer) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    bare.client.post(NAMESPACE.path(), {"metadata": {"name": HOME, "labels": labels}})
    ran = heddle(bare, "install", "-y", "--no-wait", "--set", "components.cni.enabled=true")
    assert ran.code == 1
    assert "which the node agent cannot have" in ran.err
    install(bare)


def test_nobody_to_ask_is_not_a_yes(bare: ApiServer) -> None:
    ran = heddle(bare, "install", "--profile=minimal")
    assert ran.code == 1
    assert "-y" in ran.err
    assert find(bare.client, NAMESPACE.path("", HOME)) is None
