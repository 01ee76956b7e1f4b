"""Installing once more: what changes, what is kept, and what is taken over."""

from __future__ import annotations

import base64
import subprocess

from install import files
from install.resources import CONFIG_MAP
from tests.cluster.api_server import ApiServer
from tests.cluster.install.objects import INJECTOR, PASSPHRASE
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import find, heddle, install, inventory, kubectl, versions


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
    install(api, "--skip-crds", profile="default")
    gateway = f"/apis/apps/v1/namespaces/{HOME}/deployments/istio-ingressgateway"
    assert find(api.client, gateway)
    others = CONFIG_MAP.path(HOME, "mine")
    api.client.post(CONFIG_MAP.path(HOME), {"metadata": {"name": "mine"}})
    ran = install(api, "--skip-crds")
    assert "Removed what is no longer part of it: " in ran.out
    assert find(api.client, gateway) is None
    assert find(api.client, others), "what is not ours stays"


def test_the_webhooks_own_fields_survive(api: ApiServer) -> None:
    """caBundle is the webhook's: an installation neither sets nor removes it."""
    install(api, "--skip-crds")
    (entry, *_) = api.client.get(INJECTOR)["webhooks"]
    bundle = base64.b64encode(b"roots").decode()
    patch = {"webhooks": [{"name": entry["name"], "clientConfig": {"caBundle": bundle}}]}
    kind = "application/strategic-merge-patch+json"
    api.client.call("PATCH", INJECTOR, query={"fieldManager": "heddle-webhook"}, body=patch, content_type=kind)
    install(api, "--skip-crds", "--set", "values.sidecarInjectorWebhook.enableNamespacesByDefault=true")
    after = {each["name"]: each for each in api.client.get(INJECTOR)["webhooks"]}
    assert after[entry["name"]]["clientConfig"]["caBundle"] == bundle
    assert "auto.sidecar-injector.heddle.dev" in after


def test_what_kubectl_applied_is_taken_over(api: ApiServer) -> None:
    command = [*kubectl(), f"--kubeconfig={api.kubeconfig}", "apply", "--server-side"]
    folder = ["-k", str(files.ROOT / "profiles" / "minimal")]
    subprocess.run([*command, *folder], check=True, capture_output=True, text=True)
    assert find(api.client, f"/apis/apps/v1/namespaces/{HOME}/deployments/heddle-ca")
    install(api)
    assert inventory(api.client).complete


def test_who_does_not_become_ready_is_named(api: ApiServer) -> None:
    ran = heddle(api, "install", "-y", "--profile=minimal", "--skip-crds", "--timeout=1")
    assert ran.code == 1
    assert "Certificate authority: 0/2 pods ready: " in ran.err
    assert "it waits for a node" in ran.err
