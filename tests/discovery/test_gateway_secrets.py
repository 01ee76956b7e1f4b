"""Which Secrets gateways need. How they are read, and with which rights: tests/cluster/test_discovery.py."""

from __future__ import annotations

import pytest

from discovery.gateway_secrets import needed
from tests.support.snapshots import snapshot

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
    assert {(key.namespace, key.name) for key in found} == {
        (namespace, name) for namespace in namespaces for name in ("shop", "shop-cacert")
    }


def test_nothing_is_needed_without_tls() -> None:
    plain = GATEWAY.replace("SIMPLE, credentialName: shop", "PASSTHROUGH")
    pod = POD.format(name="p", namespace="a", label="edge", annotations=IS_GATEWAY)
    assert needed(snapshot(plain + pod)) == frozenset()
