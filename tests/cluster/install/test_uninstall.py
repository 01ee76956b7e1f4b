"""`heddle uninstall`: what goes, what stays, and what `--purge` removes."""

from __future__ import annotations

from install.inventory import inventory_name
from install.resources import CONFIG_MAP, CRD, NAMESPACE
from install.uninstall import plan_removal
from tests.cluster.api_server import ApiServer
from tests.cluster.install.objects import INJECTOR, PASSPHRASE, VIRTUAL_SERVICE
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import eventually, find, heddle, install, uninstall


def test_uninstall_leaves_what_is_the_users_and_purge_nothing(bare: ApiServer) -> None:
    install(bare, profile="demo")
    eventually(
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
