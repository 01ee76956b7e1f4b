"""`heddle install`, `uninstall` and `upgrade` against a real API server with its controllers; no pods run."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from install import files
from install import lock as locks
from install.apply import Tools
from install.apply import install as apply_all
from install.inventory import BEGUN, inventory_name, read_inventories, write_inventory
from install.lock import Lock
from install.preflight import Choices, preflight
from install.render import render
from install.request import request
from install.resources import CONFIG_MAP, CRD, LEASE, MUTATING, NAMESPACE, SECRET
from install.uninstall import plan_removal
from kube.client import Client, Refused
from mesh.errors import Conflict, HeddleError
from tests.cluster import api_server as api_servers
from tests.cluster.api_server import ApiServer
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import find, heddle, install, inventory, kubectl, uninstall, versions
from tests.support.waiting import wait_for

INJECTOR = MUTATING.path("", "heddle-sidecar-injector")
PASSPHRASE = SECRET.path(HOME, "heddle-ca-passphrase")
ISTIO_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "virtualservices.networking.istio.io",
        "labels": {"release": "istio"},
        "annotations": {"meta.helm.sh/release-name": "istio-base", "helm.sh/resource-policy": "keep"},
    },
    "spec": {
        "group": "networking.istio.io",
        "names": {"kind": "VirtualService", "plural": "virtualservices", "singular": "virtualservice"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}
VIRTUAL_SERVICE: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "VirtualService",
    "metadata": {"name": "mine", "namespace": "default"},
    "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]},
}


@pytest.fixture(scope="module")
def own_api_server() -> Iterator[ApiServer]:
    """One for all tests here: an installation is for the whole cluster, and its webhook would refuse others' pods."""
    with api_servers.running() as started:
        yield started


@pytest.fixture
def api(own_api_server: ApiServer) -> Iterator[ApiServer]:
    """With no installation on it, before and after; definitions and namespace may be there."""
    yield own_api_server
    for owned in read_inventories(own_api_server.client):
        uninstall(own_api_server, f"--revision={owned.revision}")


@pytest.fixture
def bare(own_api_server: ApiServer) -> Iterator[ApiServer]:
    """With nothing of Heddle's or Istio's on it."""
    _clear(own_api_server)
    yield own_api_server
    _clear(own_api_server)


def _clear(server: ApiServer) -> None:
    for revision in ("default", *(owned.revision for owned in read_inventories(server.client))):
        uninstall(server, "--purge", f"--revision={revision}")
    of_istio = CRD.path("", ISTIO_CRD["metadata"]["name"])
    if find(server.client, of_istio):
        server.client.delete(of_istio)
        _eventually(lambda: _gone(server.client, of_istio))
    left = [raw["metadata"]["name"] for page in server.client.list(CRD.path()) for raw in page.items]
    assert not [name for name in left if name.endswith("heddle.dev")]


def test_a_second_time_changes_nothing(api: ApiServer) -> None:
    install(api, profile="default")
    before, secret = versions(api.client, inventory(api.client)), api.client.get(PASSPHRASE)
    assert all(before.values())
    ran = install(api, profile="default")
    assert "created" not in ran.out
    assert "changed," not in ran.out
    assert versions(api.client, inventory(api.client)) == before
    assert api.client.get(PASSPHRASE)["data"] == secret["data"]
    assert len(base64.b64decode(secret["data"]["passphrase"])) >= 32


def test_what_is_no_longer_asked_for_is_removed(api: ApiServer) -> None:
    install(api, profile="default")
    gateway = f"/apis/apps/v1/namespaces/{HOME}/deployments/istio-ingressgateway"
    assert find(api.client, gateway)
    others = CONFIG_MAP.path(HOME, "mine")
    api.client.post(CONFIG_MAP.path(HOME), {"metadata": {"name": "mine"}})
    ran = install(api)
    assert "Removed what is no longer part of it: " in ran.out
    assert find(api.client, gateway) is None
    assert find(api.client, others), "what is not ours stays"


def test_the_webhooks_own_fields_survive(api: ApiServer) -> None:
    """caBundle is the webhook's: an installation neither sets nor removes it."""
    install(api)
    (entry, *_) = api.client.get(INJECTOR)["webhooks"]
    bundle = base64.b64encode(b"roots").decode()
    patch = {"webhooks": [{"name": entry["name"], "clientConfig": {"caBundle": bundle}}]}
    kind = "application/strategic-merge-patch+json"
    api.client.call("PATCH", INJECTOR, query={"fieldManager": "heddle-webhook"}, body=patch, content_type=kind)
    install(api, "--set", "values.sidecarInjectorWebhook.enableNamespacesByDefault=true")
    after = {each["name"]: each for each in api.client.get(INJECTOR)["webhooks"]}
    assert after[entry["name"]]["clientConfig"]["caBundle"] == bundle
    assert "auto.sidecar-injector.heddle.dev" in after


def test_of_two_at_once_the_second_says_who_holds_it(api: ApiServer) -> None:
    """And nothing else: that the first has not finished is no news."""
    install(api)
    write_inventory(api.client, replace(inventory(api.client), state=BEGUN))
    with Lock(api.client, HOME, "ada on build-1", lambda: datetime.now(UTC)):
        ran = heddle(api, "install", "-y", "--no-wait", "--profile=minimal")
        removing = heddle(api, "uninstall", "-y")
    assert ran.code == removing.code == 1
    said = "another command is at work on this installation: ada on build-1, since "
    assert ran.err.startswith(f"error: {said}"), ran.err
    assert ran.err.count("\n") == 1
    assert "wait until it is done, then try again; if it died, its lock is free in" in ran.err
    assert said in removing.err
    ran = install(api)
    assert "was begun and not finished; it is completed now" in ran.err


def test_the_lock_of_one_that_died_is_free_after_a_minute(api: ApiServer) -> None:
    install(api)
    past = datetime.now(UTC) - timedelta(seconds=locks.LASTS_SECONDS + 5)
    Lock(api.client, HOME, "the dead", lambda: past).__enter__()
    install(api)
    assert find(api.client, LEASE.path(HOME, locks.NAME)) is None


def test_a_lock_that_was_taken_over_is_lost(api: ApiServer) -> None:
    install(api)
    now = [datetime.now(UTC) - timedelta(minutes=5)]
    slow = Lock(api.client, HOME, "the slow", lambda: now[0]).__enter__()
    with Lock(api.client, HOME, "the quick", lambda: datetime.now(UTC)):
        now[0] += timedelta(seconds=locks.RENEW_SECONDS)
        with pytest.raises(Conflict):
            slow.renew()


class Breaks(Client):
    """Fails at the n-th object that is applied for good, as a lost connection would."""

    def __init__(self, client: Client, after: int) -> None:
        super().__init__(client._api, client.address)
        self.left = after

    def apply(self, path: str, body: Any, *, force: bool = True, dry_run: bool = False) -> Any:
        if not dry_run:
            self.left -= 1
            if self.left == 0:
                raise HeddleError("broken off")
        return super().apply(path, body, force=force, dry_run=dry_run)


@pytest.mark.parametrize("after", [3, 25])
def test_an_installation_that_broke_off_is_completed_or_removed_by_the_next(bare: ApiServer, after: int) -> None:
    rendered = render(request([], profile="default").spec)
    findings = preflight(bare.client, rendered, Choices(), native_sidecars=True, now=datetime.now(UTC))
    with pytest.raises(HeddleError, match="broken off"):
        apply_all(Tools(Breaks(bare.client, after), lambda _: None), rendered, findings, "", "x", wait=False)
    assert not inventory(bare.client).complete
    if after == 3:
        uninstall(bare, "--purge")
        assert find(bare.client, NAMESPACE.path("", HOME)) is None
    else:
        ran = install(bare)
        assert "was begun and not finished; it is completed now" in ran.err
        assert inventory(bare.client).complete
        assert find(bare.client, f"/apis/apps/v1/namespaces/{HOME}/deployments/istio-ingressgateway") is None


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


def test_definitions_of_istio_are_refused_or_adopted(bare: ApiServer) -> None:
    path = CRD.path("", ISTIO_CRD["metadata"]["name"])
    bare.client.post(CRD.path(), ISTIO_CRD)
    collection = "/apis/networking.istio.io/v1beta1/namespaces/default/virtualservices"
    _eventually(lambda: bare.client.post(collection, VIRTUAL_SERVICE))
    ran = heddle(bare, "install", "-y", "--no-wait")
    assert ran.code == 1
    assert "virtualservices.networking.istio.io (of Helm release istio-base)" in ran.err
    assert "--adopt-crds" in ran.err
    install(bare, "--adopt-crds")
    _eventually(lambda: bare.client.get("/apis/networking.istio.io/v1/namespaces/default/virtualservices/mine"))
    install(bare)  # once adopted, it is not asked for again
    bare.client.delete(CONFIG_MAP.path(HOME, inventory_name("default")))  # also when it is not known what is owned
    uninstall(bare, "--purge")
    assert find(bare.client, path), "what was there before stays, with the objects in it"
    assert find(bare.client, CRD.path("", "gateways.networking.istio.io")) is None


def test_definitions_can_be_left_as_they_are(bare: ApiServer) -> None:
    path = CRD.path("", ISTIO_CRD["metadata"]["name"])
    bare.client.post(CRD.path(), ISTIO_CRD)
    install(bare, "--skip-crds")
    assert [each["name"] for each in bare.client.get(path)["spec"]["versions"]] == ["v1beta1"]
    assert find(bare.client, CRD.path("", "gateways.networking.istio.io")) is None


def test_another_namespace(bare: ApiServer) -> None:
    """All of it is there, nothing where it usually is, and it is removed whether it is known what is owned or not."""
    asked = "--set=values.global.istioNamespace=mesh-system"
    install(bare, asked, profile="default")
    assert {each.namespace for each in inventory(bare.client).objects} == {"", "mesh-system"}
    assert find(bare.client, NAMESPACE.path("", HOME)) is None
    (entry, *_) = bare.client.get(INJECTOR)["webhooks"]
    assert entry["clientConfig"]["service"]["namespace"] == "mesh-system"
    assert "mesh-system" in entry["namespaceSelector"]["matchExpressions"][-1]["values"]
    ran = heddle(bare, "install", "-y", "--no-wait")
    assert ran.code == 1
    assert "installed in namespace mesh-system already" in ran.err
    ran = heddle(bare, "upgrade", "-y", "--timeout=0")
    assert "not ready after 0 s" in ran.err, "no pod runs here; it is upgraded where it is"
    pods = "/api/v1/namespaces/mesh-system/pods?labelSelector=app%3Dheddle-discovery"
    wait_for(lambda: bool(bare.client.get(pods)["items"]))
    assert "no replica of discovery is ready" in heddle(bare, "status").out, "it is found"
    assert "no control plane runs in elsewhere" in heddle(bare, "status", "-i", "elsewhere").err
    bare.client.delete(CONFIG_MAP.path("mesh-system", inventory_name("default")))
    uninstall(bare, "--purge")
    _eventually(lambda: _gone(bare.client, NAMESPACE.path("", "mesh-system")))


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
        ran = install(api, "--revision=canary")
        assert "no namespace may ask for both" in ran.err
    finally:
        api.client.delete(MUTATING.path("", "istio-sidecar-injector"))


def test_uninstall_leaves_what_is_the_users_and_purge_nothing(bare: ApiServer) -> None:
    install(bare, profile="demo")
    _eventually(
        lambda: bare.client.post(
            "/apis/networking.istio.io/v1/namespaces/default/virtualservices",
            VIRTUAL_SERVICE | {"apiVersion": "networking.istio.io/v1"},
        )
    )
    ran = uninstall(bare)
    assert "--purge" in ran.out
    assert find(bare.client, "/apis/networking.istio.io/v1/namespaces/default/virtualservices/mine")
    assert find(bare.client, PASSPHRASE)
    assert find(bare.client, INJECTOR) is None
    assert find(bare.client, CONFIG_MAP.path(HOME, inventory_name("default"))) is None
    install(bare)
    roots = CONFIG_MAP.path("default", "istio-ca-root-cert")
    bare.client.post(CONFIG_MAP.path("default"), {"metadata": {"name": "istio-ca-root-cert"}})
    order = [reference.path for reference in plan_removal(bare.client, "default", purge=True).objects]
    assert order.index(roots) > order.index(f"/api/v1/namespaces/{HOME}/serviceaccounts/heddle-ca"), "who writes it"
    uninstall(bare, "--purge")
    assert find(bare.client, roots) is None
    assert find(bare.client, NAMESPACE.path("", HOME)) is None
    assert find(bare.client, CRD.path("", "virtualservices.networking.istio.io")) is None
    roles = bare.client.get("/apis/rbac.authorization.k8s.io/v1/clusterroles")["items"]
    assert not [raw for raw in roles if raw["metadata"]["name"].startswith("heddle")]


def test_uninstall_without_an_inventory_goes_by_labels(bare: ApiServer) -> None:
    install(bare)
    bare.client.delete(CONFIG_MAP.path(HOME, inventory_name("default")))
    uninstall(bare, "--purge")
    assert find(bare.client, NAMESPACE.path("", HOME)) is None
    assert find(bare.client, INJECTOR) is None


def test_nothing_to_uninstall(bare: ApiServer) -> None:
    ran = heddle(bare, "uninstall", "-y")
    assert (ran.code, "Nothing of revision default is installed" in ran.out) == (0, True)


def test_revisions_stand_beside_each_other(api: ApiServer) -> None:
    install(api)
    install(api, "--revision=canary")
    deployments = api.client.get(f"/apis/apps/v1/namespaces/{HOME}/deployments")["items"]
    names = {raw["metadata"]["name"] for raw in deployments}
    assert {"heddle-ca", "heddle-ca-canary", "heddle-webhook-canary", "heddle-discovery-canary"} <= names
    entries = api.client.get(f"{INJECTOR}-canary")["webhooks"]
    assert [entry["name"].split(".")[0] for entry in entries] == ["rev", "rev"]
    before = versions(api.client, inventory(api.client))
    uninstall(api, "--revision=canary", "--purge")
    assert versions(api.client, inventory(api.client)) == before, "what is shared stays for the other revision"
    assert find(api.client, f"{INJECTOR}-canary") is None
    assert find(api.client, PASSPHRASE)


def test_tags_point_at_revisions_and_go_with_them(api: ApiServer) -> None:
    install(api)
    install(api, "--revision=canary")
    assert heddle(api, "tag", "set", "prod", "--revision=canary").code == 0
    tag = api.client.get(MUTATING.path("", "heddle-revision-tag-prod"))
    assert tag["metadata"]["labels"]["istio.io/rev"] == "canary"
    assert {entry["clientConfig"]["service"]["name"] for entry in tag["webhooks"]} == {"heddle-webhook-canary"}
    with api.namespace({"istio.io/rev": "prod"}) as namespace:
        assert namespace in heddle(api, "tag", "list").out
        refused = heddle(api, "tag", "set", "prod", "--revision=default")
        assert "--overwrite" in refused.err
        assert heddle(api, "tag", "set", "prod", "--revision=default", "--overwrite").code == 0
        assert namespace in heddle(api, "tag", "remove", "prod").err
    assert heddle(api, "tag", "set", "prod", "--revision=canary", "--overwrite").code == 0
    assert "there is no revision other" in heddle(api, "tag", "set", "prod", "--revision=other").err
    assert "there is a revision canary" in heddle(api, "tag", "set", "canary", "--revision=default").err
    uninstall(api, "--revision=canary")
    assert find(api.client, MUTATING.path("", "heddle-revision-tag-prod")) is None


def test_upgrade_keeps_what_was_asked_for(api: ApiServer) -> None:
    assert "revision default is not installed" in heddle(api, "upgrade", "-y").err
    install(api, "--set", "components.pilot.k8s.replicaCount=3")
    write_inventory(api.client, replace(inventory(api.client), version="0.0.9"))
    ran = heddle(api, "upgrade", "-y", "--timeout=1")
    assert "not ready after 1 s" in ran.err, "no pods run here"
    deployment = api.client.get(f"/apis/apps/v1/namespaces/{HOME}/deployments/heddle-ca")
    assert deployment["spec"]["replicas"] == 3


def test_an_upgrade_over_two_minor_versions_is_refused(api: ApiServer) -> None:
    install(api)
    write_inventory(api.client, replace(inventory(api.client), version="0.3.0"))
    ran = heddle(api, "upgrade", "-y")
    assert ran.code == 1
    assert "a downgrade is not tested" in ran.err


def test_what_kubectl_applied_is_taken_over(api: ApiServer) -> None:
    command = [*kubectl(), f"--kubeconfig={api.kubeconfig}", "apply", "--server-side"]
    folder = ["-k", str(files.ROOT / "profiles" / "minimal")]
    subprocess.run([*command, *folder], check=True, capture_output=True, text=True)
    assert find(api.client, f"/apis/apps/v1/namespaces/{HOME}/deployments/heddle-ca")
    install(api)
    assert inventory(api.client).complete


def test_who_does_not_become_ready_is_named(api: ApiServer) -> None:
    ran = heddle(api, "install", "-y", "--profile=minimal", "--timeout=1")
    assert ran.code == 1
    assert "Certificate authority: 0/2 pods ready: " in ran.err
    assert "it waits for a node" in ran.err


def test_doctor_says_whom_a_webhook_blocks_and_the_way_out(api: ApiServer) -> None:
    assert "no installation" in heddle(api, "doctor").out
    install(api)
    with api.namespace({"istio-injection": "enabled"}) as namespace:
        path = f"/api/v1/namespaces/{namespace}"
        _eventually(lambda: api.client.get(f"{path}/serviceaccounts/default"))
        pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
        with pytest.raises((Refused, HeddleError)):
            api.client.post(f"{path}/pods", pod)
        ran = heddle(api, "doctor")
        assert ran.code == 3
        assert f"no pod can be created in labelled namespaces ({namespace})" in ran.out
        assert "kubectl delete mutatingwebhookconfiguration heddle-sidecar-injector" in ran.out
        assert f"ConfigMap {namespace}/istio-ca-root-cert: it is missing" in ran.out
        api.client.delete(INJECTOR)  # the way out
        _eventually(lambda: api.client.post(f"{path}/pods", pod))
        ran = heddle(api, "doctor")
        assert "there is no webhook configuration" in ran.out
        assert "1 of its pods have none: a" in ran.out
    with api.namespace({"istio.io/rev": "typo"}) as namespace:
        assert f"Namespace {namespace}: it is labelled istio.io/rev=typo" in heddle(api, "doctor").out


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


def _gone(client: Client, path: str) -> None:
    if find(client, path):
        raise Conflict(f"{path} is still there")


def _eventually(attempt: Callable[[], Any]) -> Any:
    """Definitions and service accounts take a moment."""
    ends = time.monotonic() + 120
    while True:
        try:
            return attempt()
        except HeddleError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
