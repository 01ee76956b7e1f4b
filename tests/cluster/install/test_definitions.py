"""Definitions of Istio's kinds that are there before, and namespaces other than the usual one."""

from __future__ import annotations

from install.inventory import inventory_name
from install.resources import CONFIG_MAP, CRD, NAMESPACE
from tests.cluster.api_server import ApiServer
from tests.cluster.install.objects import INJECTOR, ISTIO_CRD, VIRTUAL_SERVICE
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import eventually, find, gone, heddle, install, inventory, uninstall
from tests.support.waiting import wait_for


def test_definitions_of_istio_are_refused_or_adopted(bare: ApiServer) -> None:
    path = CRD.path("", ISTIO_CRD["metadata"]["name"])
    bare.client.post(CRD.path(), ISTIO_CRD)
    collection = "/apis/networking.istio.io/v1beta1/namespaces/default/virtualservices"
    eventually(lambda: bare.client.post(collection, VIRTUAL_SERVICE))
    ran = heddle(bare, "install", "-y", "--no-wait")
    assert ran.code == 1
    assert "virtualservices.networking.istio.io (of Helm release istio-base)" in ran.err
    assert "--adopt-crds" in ran.err
    install(bare, "--adopt-crds")
    eventually(lambda: bare.client.get("/apis/networking.istio.io/v1/namespaces/default/virtualservices/mine"))
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
    eventually(lambda: gone(bare.client, NAMESPACE.path("", "mesh-system")))
