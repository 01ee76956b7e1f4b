"""Revisions, tags and upgrades."""

from __future__ import annotations

from dataclasses import replace

from install.inventory import write_inventory
from install.resources import MUTATING
from tests.cluster.api_server import ApiServer
from tests.cluster.install.objects import INJECTOR, PASSPHRASE
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import find, heddle, install, inventory, uninstall, versions


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
    install(api, "--skip-crds")
    install(api, "--skip-crds", "--revision=canary")
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
    install(api, "--skip-crds", "--set", "components.pilot.k8s.replicaCount=3")
    write_inventory(api.client, replace(inventory(api.client), version="0.0.9"))
    ran = heddle(api, "upgrade", "-y", "--skip-crds", "--timeout=1")
    assert "not ready after 1 s" in ran.err, "no pods run here"
    deployment = api.client.get(f"/apis/apps/v1/namespaces/{HOME}/deployments/heddle-ca")
    assert deployment["spec"]["replicas"] == 3


def test_an_upgrade_over_two_minor_versions_is_refused(api: ApiServer) -> None:
    install(api, "--skip-crds")
    write_inventory(api.client, replace(inventory(api.client), version="0.3.0"))
    ran = heddle(api, "upgrade", "-y")
    assert ran.code == 1
    assert "a downgrade is not tested" in ran.err
