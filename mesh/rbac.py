"""The rights of each component at the API server: what it watches by the kinds table, and what else it does. Pure.

`python -m mesh.rbac` writes manifests/*/access.yaml from this; a test fails when they are stale. A right that nothing
uses is a mistake: tests/cluster/test_rights.py compares these tables with what the API server was asked for.
Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mesh.identity import CONTROL_NAMESPACE
from mesh.kinds import watched_by

READ = ("list", "watch")
READ_ONE = ("get", *READ)
ROOTS_MAP = "istio-ca-root-cert"
STATUS_LEASE = "heddle-discovery-status"
ROTATION_LEASE = "heddle-ca-rotation"
CA_SIGNER = "ca-signer"
"""The ca, where its root is kept elsewhere: rights beside its own, which no installation has by itself."""
CA_POD_CERTIFICATES = "ca-pod-certificates"
"""The ca, where it signs PodCertificateRequests: likewise."""
COMPONENTS = ("ca", "discovery", "webhook", "node", CA_SIGNER, CA_POD_CERTIFICATES)
_OF_THE_CA = (CA_SIGNER, CA_POD_CERTIFICATES)


@dataclass(frozen=True, slots=True)
class Right:
    """Some verbs on one resource (`pods`, `virtualservices/status`). `why` is for people who review the role.

    `own_namespace`: in the control plane's namespace only. `names`: only objects of these names.
    """

    verbs: tuple[str, ...]
    group: str
    resource: str
    why: str
    own_namespace: bool = False
    names: tuple[str, ...] = ()


def _definitions(component: str) -> Right:
    names = tuple(kind.definition for kind in watched_by(component) if kind.definition)
    why = "whether a kind that is not served may have objects"
    return Right(("get",), "apiextensions.k8s.io", "customresourcedefinitions", why, names=names)


_MESH_CONFIG = Right(READ, "", "configmaps", "the mesh's settings", True, ("istio",))

_FURTHER: dict[str, tuple[Right, ...]] = {
    "ca": (
        Right(("get",), "", "pods", "whether a caller's pod still exists"),
        Right(("create",), "authentication.k8s.io", "tokenreviews", "who a token belongs to"),
        Right((*READ, "create", "patch"), "", "configmaps", "the roots, in every namespace", names=(ROOTS_MAP,)),
        Right(READ, "", "namespaces", "which namespaces get the roots"),
        Right(("create", "get", "patch"), "heddle.dev", "workloadcertificates", "tells of each certificate"),
        Right(("list",), "heddle.dev", "workloadcertificates", "which of them are overdue or have expired"),
        Right(("create", "patch"), "heddle.dev", "trustdomains", "tells of the roots and of their rotation"),
        Right(("patch",), "heddle.dev", "trustdomains/status", "how far the rotation is"),
        Right(("create", "patch"), "events.k8s.io", "events", "tells a pod why it was refused"),
        Right((*READ_ONE, "update"), "", "secrets", "the root, encrypted", True, ("heddle-ca-root",)),
        Right(("create",), "", "secrets", "the root, the first time; RBAC cannot name what is created", True),
        Right(("get", "update"), "coordination.k8s.io", "leases", "which replica rotates", True, (ROTATION_LEASE,)),
        Right(("create",), "coordination.k8s.io", "leases", "the first time; RBAC cannot name what is created", True),
    ),
    "discovery": (
        _MESH_CONFIG,
        *(
            Right(("patch",), kind.group, f"{kind.plural}/status", "tells what became of each object")
            for kind in watched_by("discovery")
            if kind.of_istio
        ),
        _definitions("discovery"),
        Right(("get", "update"), "coordination.k8s.io", "leases", "which replica writes", True, (STATUS_LEASE,)),
        Right(("create",), "coordination.k8s.io", "leases", "the first time; RBAC cannot name what is created", True),
    ),
    "webhook": (
        Right(("get",), "", "namespaces", "labels of a namespace that was made a moment ago"),
        _definitions("webhook"),
        _MESH_CONFIG,
        Right(READ, "", "configmaps", "what is set for injection", True, ("istio-sidecar-injector",)),
        Right(
            (*READ, "patch"),
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            "its caBundle, and the revision tags that lead to it",
        ),
        Right(
            (*READ, "patch"),
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations",
            "its caBundle, and whether it may be ignored",
        ),
        Right(("create",), "networking.istio.io", "workloadgroups", "in a dry run: whether it is asked at all", True),
        Right(("create",), "events.k8s.io", "events", "tells of what was admitted although an Envoy refuses it"),
    ),
    CA_SIGNER: (
        Right(
            ("create", "get"),
            "certificates.k8s.io",
            "certificatesigningrequests",
            "has its intermediates signed by whoever holds the root",
        ),
    ),
    CA_POD_CERTIFICATES: (
        Right(READ, "certificates.k8s.io", "podcertificaterequests", "which pods ask for a certificate"),
        Right(("update",), "certificates.k8s.io", "podcertificaterequests/status", "answers them"),
        Right(("create", "patch"), "certificates.k8s.io", "clustertrustbundles", "the roots, for projected volumes"),
        Right(
            ("sign", "attest"), "certificates.k8s.io", "signers", "as this signer alone", names=("heddle.dev/spiffe",)
        ),
    ),
    "node": (Right(("create",), "events.k8s.io", "events", "tells a pod why it does not start"),),
}
"""What a component does besides watching the kinds that the table gives to it."""


def rights(component: str) -> tuple[Right, ...]:
    """Everything that `component` may do."""
    watched = [Right(READ, kind.group, kind.plural, f"follows every {kind.kind}") for kind in watched_by(component)]
    return (*watched, *_FURTHER[component])


def access(component: str) -> list[dict[str, Any]]:
    """ServiceAccount, roles and bindings of `component`, as they stand in manifests/."""
    name = f"heddle-{component}"
    labels = {"app": name, "app.kubernetes.io/part-of": "heddle"}
    account = {"kind": "ServiceAccount", "name": name, "namespace": CONTROL_NAMESPACE}
    objects: list[dict[str, Any]] = [_object("v1", "ServiceAccount", name, labels, own_namespace=True)]
    if component in _OF_THE_CA:
        account["name"], objects = "heddle-ca", []
    all_rights = rights(component)
    for own_namespace, kind in ((False, "ClusterRole"), (True, "Role")):
        rules = list(_rules([right for right in all_rights if right.own_namespace is own_namespace]))
        if not rules:
            continue
        role = _object("rbac.authorization.k8s.io/v1", kind, name, labels, own_namespace=own_namespace)
        binding = _object("rbac.authorization.k8s.io/v1", f"{kind}Binding", name, labels, own_namespace=own_namespace)
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        objects += [role | {"rules": rules}, binding | {"roleRef": reference, "subjects": [account]}]
    return objects


def _object(api_version: str, kind: str, name: str, labels: dict[str, str], *, own_namespace: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if own_namespace:
        metadata["namespace"] = CONTROL_NAMESPACE
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata | {"labels": dict(labels)}}


def _rules(given: Sequence[Right]) -> Iterator[dict[str, Any]]:
    """One rule for all resources of a group that have the same verbs and names, in the order of their first."""
    together: dict[tuple[Any, ...], list[str]] = {}
    verbs: dict[tuple[str, str, tuple[str, ...]], tuple[str, ...]] = {}
    for right in given:  # one resource's verbs in one place
        key = (right.group, right.resource, right.names)
        verbs[key] = tuple(dict.fromkeys((*verbs.get(key, ()), *right.verbs)))
    for (group, resource, names), allowed in verbs.items():
        together.setdefault((group, names, allowed), []).append(resource)
    for (group, names, allowed), resources in together.items():
        rule: dict[str, Any] = {"apiGroups": [group], "resources": resources}
        if names:
            rule["resourceNames"] = list(names)
        yield rule | {"verbs": list(allowed)}


def access_page(component: str) -> str:
    """manifests/.../access.yaml"""
    reasons = [f"#   {line}" for line in _reasons(rights(component))]
    head = "# Written from mesh/rbac.py by `python -m mesh.rbac`; do not edit. Why each right is needed:"
    documents = yaml.safe_dump_all(access(component), sort_keys=False, width=120)
    return "\n".join([head, *reasons, documents])


def _reasons(given: Iterable[Right]) -> Iterator[str]:
    followed = [right.resource for right in given if right.why.startswith("follows every ")]
    if followed:
        yield f"{', '.join(READ)} {', '.join(followed)}: follows them"
    for right in given:
        if not right.why.startswith("follows every "):
            where = " here" if right.own_namespace else ""
            named = f" {', '.join(right.names)}" if right.names else ""
            yield f"{', '.join(right.verbs)} {right.resource}{named}{where}: {right.why}"


def page_of(component: str) -> Path:
    """Where `access_page` is committed."""
    manifests = Path(__file__).resolve().parents[1] / "manifests"
    return manifests / (component if component in ("node", *_OF_THE_CA) else f"base/{component}") / "access.yaml"


if __name__ == "__main__":
    for each in COMPONENTS:
        page_of(each).parent.mkdir(exist_ok=True)
        page_of(each).write_text(access_page(each))
