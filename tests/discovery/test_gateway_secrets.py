"""Which Secrets gateways need, and that they come and go. With which rights: tests/cluster/test_discovery.py."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from discovery.gateway_secrets import needed
from tests.discovery.harness import Agent, Cluster, DiscoveryProcess, Json, meta
from tests.discovery.harness import pod as running_pod
from tests.support.certificates import Authority
from tests.support.snapshots import snapshot
from tests.support.waiting import wait_for

POD = """
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{istio: {label}}}
  annotations: {{{annotations}}}
spec: {{containers: []}}
---
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: elsewhere}
spec:
  selector: {istio: edge}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: SIMPLE, credentialName: shop}
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
"""
IS_GATEWAY = "inject.istio.io/templates: 'sidecar, gateway'"


@pytest.mark.parametrize(
    ("pods", "namespaces"),
    [
        ([("edge", "a", IS_GATEWAY), ("edge", "b", IS_GATEWAY)], {"a", "b"}),  # each from its own namespace
        ([("edge", "a", ""), ("other", "b", IS_GATEWAY)], set()),  # no gateway; another gateway
        ([], set()),
    ],
)
def test_a_gateway_needs_what_it_is_told_to_serve(pods: list[tuple[str, str, str]], namespaces: set[str]) -> None:
    text = "".join(
        POD.format(name=f"p-{label}", namespace=namespace, label=label, annotations=annotations)
        for label, namespace, annotations in pods
    )
    found = needed(snapshot(GATEWAY + text))
    assert {(key.namespace, key.name) for key in found} == {(namespace, "shop") for namespace in namespaces}


def test_clients_may_be_checked_with_a_secret_of_its_own() -> None:
    pod = POD.format(name="p", namespace="a", label="edge", annotations=IS_GATEWAY)
    found = needed(snapshot(GATEWAY.replace("SIMPLE", "MUTUAL") + pod))
    assert {key.name for key in found} == {"shop", "shop-cacert"}


def test_nothing_is_needed_without_tls() -> None:
    plain = GATEWAY.replace("SIMPLE, credentialName: shop", "PASSTHROUGH")
    pod = POD.format(name="p", namespace="a", label="edge", annotations=IS_GATEWAY)
    assert needed(snapshot(plain + pod)) == frozenset()


def secret(name: str) -> Json:
    certificate = Authority().issue(dns="shop.example")
    pair = {"tls.crt": certificate.chain_pem, "tls.key": certificate.key_pem}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in pair.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta(name), "type": "kubernetes.io/tls", "data": data}


def test_a_secret_that_comes_goes_and_is_there_at_once_after_a_restart(tmp_path: Path) -> None:
    address, templates = "10.244.0.9", {"inject.istio.io/templates": "gateway"}
    gateway = yaml.safe_load(GATEWAY.replace("---", ""))
    gateway["spec"]["selector"] = {"app": "edge"}
    with Cluster() as cluster:
        cluster.put(running_pod("edge", address, account="edge", annotations=templates), gateway)
        with DiscoveryProcess(cluster, tmp_path) as discovery:
            edge = Agent(discovery, "edge", address, account="edge")

            def served() -> bool:
                assert edge.poll(0.05)[0] in (200, 204)
                return bool(edge.has.get("secrets"))

            assert not served()
            for _ in range(2):
                cluster.put(secret("shop"))
                wait_for(served)
                cluster.delete("Secret", "default", "shop")
                wait_for(lambda: not served())
            edge.close()
        cluster.put(secret("shop"))
        with DiscoveryProcess(cluster, tmp_path) as discovery:
            edge = Agent(discovery, "edge", address, account="edge")
            assert served(), "the first answer has it"
            edge.close()
