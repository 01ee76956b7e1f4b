"""What a cluster would make of manifests: pods, sidecars, addresses and endpoints, without running anything."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from local.offline import Objects, completed
from mesh.objects import SIDECAR_STATUS_ANNOTATION
from mesh.problems import ObjectErrors

WORKLOAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: app, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
"""
NAMESPACE = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: %s}}\n"


def made(text: str) -> Objects:
    return completed(document for document in yaml.safe_load_all(text) if document)


def names(objects: Objects, kind: str = "Pod") -> list[str]:
    return [raw["metadata"]["name"] for raw in objects[kind]]


def injected(objects: Objects) -> set[bool]:
    return {SIDECAR_STATUS_ANNOTATION in raw["metadata"]["annotations"] for raw in objects["Pod"]}


def test_a_workload_has_its_pods_and_its_service_their_addresses() -> None:
    objects = made(WORKLOAD)
    assert names(objects) == ["web-0", "web-1"]
    addresses = {raw["status"]["podIP"] for raw in objects["Pod"]}
    assert len(addresses) == 2
    (piece,) = objects["EndpointSlice"]
    assert {each["addresses"][0] for each in piece["endpoints"]} == addresses
    assert piece["ports"][0]["port"] == 8080
    assert objects["Service"][0]["spec"]["clusterIP"]


@pytest.mark.parametrize(("label", "sidecar"), [("", True), ("enabled", True), ("disabled", False)])
def test_the_namespace_decides_about_sidecars(label: str, sidecar: bool) -> None:
    assert injected(made(WORKLOAD + (NAMESPACE % label if label else ""))) == {sidecar}


def test_addresses_of_others_do_not_move_when_something_comes() -> None:
    another = WORKLOAD.replace("name: web", "name: api").replace("app: web", "app: api")
    before, after = made(WORKLOAD), made(another + "---" + WORKLOAD)

    def addresses(objects: Objects) -> dict[str, Any]:
        return {raw["metadata"]["name"]: raw["status"]["podIP"] for raw in objects["Pod"]}

    assert addresses(before).items() <= addresses(after).items()


def test_the_pods_of_a_dump_are_not_made_again() -> None:
    objects = made(WORKLOAD)
    pod = {**objects["Pod"][0], "status": {"podIP": "10.0.0.9", "phase": "Running", "conditions": []}}
    owned = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-1a", "namespace": "shop", "ownerReferences": [{"kind": "Deployment", "name": "web"}]},
        "spec": yaml.safe_load(WORKLOAD.split("---")[0])["spec"],
    }
    pod["metadata"] = {**pod["metadata"], "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1a"}]}
    dump = completed([*objects["Deployment"], *objects["Service"], owned, pod])
    assert names(dump) == ["web-0"]
    assert dump["Pod"][0]["status"]["podIP"] == "10.0.0.9"


def test_endpoints_that_are_described_stand() -> None:
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "own", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [],
    }
    assert names(made(WORKLOAD + "---\n" + yaml.safe_dump(piece)), "EndpointSlice") == ["own"]


def test_the_later_of_two_counts() -> None:
    assert names(made(WORKLOAD + "---" + WORKLOAD.replace("replicas: 2", "replicas: 1"))) == ["web-0"]


def test_a_pod_that_would_be_refused_is_named() -> None:
    wrong = "labels: {app: web}, annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: x}"
    with pytest.raises(ObjectErrors, match="Deployment shop/web"):
        made(WORKLOAD.replace("labels: {app: web}}\n    spec", wrong + "}\n    spec"))
