"""What the tests of an installation look for, and what was on the cluster before it."""

from __future__ import annotations

from typing import Any

from install.resources import MUTATING, SECRET
from tests.cluster.installing import NAMESPACE

INJECTOR = MUTATING.path("", "heddle-sidecar-injector")
PASSPHRASE = SECRET.path(NAMESPACE, "heddle-ca-passphrase")
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
