"""Pods whose interception rules a node agent writes from outside: which those are, and the gate that waits. Pure.

Where pod security does not let a pod have NET_ADMIN (levels `restricted` and `baseline`), or where the mesh says so,
`istio-init` becomes `istio-validation` with the same arguments: a container without any right, which ends when the
rules are in force (node/gate.py; docs/adr/0130).
Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mesh import ports
from webhook.config import InjectionConfig

GATE_CONTAINER = "istio-validation"
ENFORCE = "pod-security.kubernetes.io/enforce"
WITHOUT_NET_ADMIN = ("restricted", "baseline")
SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}

Raw = dict[str, Any]


def for_namespace(config: InjectionConfig, namespace: str, labels: Mapping[str, str]) -> InjectionConfig:
    """`config` as it holds for pods of `namespace`, whose labels are `labels`."""
    heddle = config.settings.heddle
    gated = heddle.node_agent or labels.get(ENFORCE) in WITHOUT_NET_ADMIN
    if not gated or not config.node_agent or namespace in heddle.node_agent_exclude_namespaces:
        return config
    return replace(config, gated=True)


def as_gate(init: Mapping[str, Any], of_proxy: Mapping[str, Any]) -> Raw:
    """The gate that stands where `init`, the container `istio-init`, would; `of_proxy` is the proxy's securityContext.

    It runs as the proxy's user, because of that user's connections the rules can be proven without any right.
    """
    return {
        **init,
        "name": GATE_CONTAINER,
        "command": ["heddle-gate"],
        "env": [
            _from_pod("POD_NAME", "metadata.name"),
            _from_pod("POD_NAMESPACE", "metadata.namespace"),
            _from_pod("POD_UID", "metadata.uid"),
            _from_pod("NODE_NAME", "spec.nodeName"),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": of_proxy.get("runAsGroup") or ports.PROXY_GID,
            "runAsNonRoot": True,
            "runAsUser": of_proxy.get("runAsUser") or ports.PROXY_UID,
            **SECCOMP,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _from_pod(name: str, path: str) -> Raw:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
