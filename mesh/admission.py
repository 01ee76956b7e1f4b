"""What the API server sends to the validating webhook, and how. Pure.

`python -m mesh.admission` writes manifests/base/webhook/validator.yaml; a test fails when it is stale. Nobody can be
locked out by it: nothing of Kubernetes' own and nothing of the control plane's namespace waits for an answer, but for
the mesh's settings, which are stored after two seconds without one; DELETE is never sent, and every entry begins with
`failurePolicy: Ignore`. Those in `ENFORCED` become Fail while the webhook answers the API server
(webhook/enforcement.py).
Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mesh.annotations import REVISION
from mesh.identity import CONTROL_NAMESPACE
from mesh.kinds import HEDDLE, KINDS, Kind

NAME = "heddle-validator"
SUFFIX = ".validation.heddle.dev"
ENFORCED = ("rev.istio.validation.heddle.dev", "istio.validation.heddle.dev")
"""The entries whose failurePolicy the webhook turns to Fail."""
PROBE = "heddle.dev/admission-probe"
"""Annotation of the webhook's own question to itself, by way of the API server; refused with its value."""
SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")
FILE = Path(__file__).resolve().parents[1] / "manifests" / "base" / "webhook" / "validator.yaml"
_HEAD = """\
# Written from mesh/admission.py by `python -m mesh.admission`; do not edit.
#
# What the API server asks the webhook before it stores it. failurePolicy is Ignore here. The webhook turns it to Fail
# for {enforced}
# once it has proof that the API server gets its answers, and back when it gets none. Should it ever be in your way:
#   kubectl delete validatingwebhookconfiguration heddle-validator
#
# `caBundle` is not here on purpose: the webhook writes it, and rotates it.
"""
_TIMEOUT_SECONDS = 5
_ADVICE_SECONDS = 2

Raw = dict[str, Any]


def configuration() -> Raw:
    """The ValidatingWebhookConfiguration of revision `default`. Entries named `rev.` are those of objects that name the
    revision, which every revision has; what names none is the default revision's."""
    named = {"matchExpressions": [{"key": REVISION, "operator": "In", "values": ["default"]}]}
    unnamed = {"matchExpressions": [{"key": REVISION, "operator": "DoesNotExist"}]}
    istio = list(_rules(kind for kind in KINDS if kind.of_istio))
    own = list(_rules(kind for kind in KINDS if kind.group == HEDDLE))
    services = list(_rules(kind for kind in KINDS if (kind.group, kind.kind) == ("", "Service")))
    maps = list(_rules(kind for kind in KINDS if (kind.group, kind.kind) == ("", "ConfigMap")))
    outside = _namespaces("NotIn", (*SYSTEM_NAMESPACES, CONTROL_NAMESPACE))
    entries = [
        # Istio's kinds, in the namespaces of applications.
        _entry(ENFORCED[0], istio, outside, named),
        _entry(ENFORCED[1], istio, outside, unnamed),
        # Policies for the whole mesh, and gateways: checked while there is somebody to do it.
        _entry("rev.root.validation.heddle.dev", istio, _namespaces("In", (CONTROL_NAMESPACE,)), named),
        _entry("root.validation.heddle.dev", istio, _namespaces("In", (CONTROL_NAMESPACE,)), unnamed),
        # Heddle's own, but for what the ca writes, which must not wait for anybody.
        _entry("own.validation.heddle.dev", own, {}, {}) | {"matchConditions": [_NOT_BY_THE_CA]},
        # Advice alone: ports whose names hide their protocol.
        _entry("services.validation.heddle.dev", services, outside, {}, _ADVICE_SECONDS),
        # The mesh's settings.
        _entry("settings.validation.heddle.dev", maps, _namespaces("In", (CONTROL_NAMESPACE,)), {}, _ADVICE_SECONDS)
        | {"matchConditions": [_SETTINGS]},
    ]
    labels = {"app": NAME, "app.kubernetes.io/part-of": "heddle", REVISION: "default"}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": labels},
        "webhooks": entries,
    }


_SETTINGS = {
    "name": "mesh-settings",
    "expression": "(request.name == 'istio' || request.name.startsWith('istio-')) && "
    "has(object.data) && 'mesh' in object.data",
}
_NOT_BY_THE_CA = {
    "name": "not-by-the-ca",
    "expression": f"request.userInfo.username != 'system:serviceaccount:{CONTROL_NAMESPACE}:heddle-ca'",
}


def _entry(name: str, rules: list[Raw], namespaces: Raw, objects: Raw, timeout: int = _TIMEOUT_SECONDS) -> Raw:
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "service": {
                "name": "heddle-webhook",
                "namespace": CONTROL_NAMESPACE,
                "path": "/validate",
                "port": 443,
            }
        },
        "rules": rules,
        "matchPolicy": "Equivalent",
        "sideEffects": "NoneOnDryRun",  # events on what was admitted all the same
        "failurePolicy": "Ignore",
        "timeoutSeconds": timeout,
        "namespaceSelector": namespaces,
        "objectSelector": objects,
    }


def _namespaces(operator: str, names: Iterable[str]) -> Raw:
    return {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": operator, "values": list(names)}]}


def _rules(kinds: Iterable[Kind]) -> Iterable[Raw]:
    """One rule for all kinds of a group that have the same versions and scope."""
    together: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
    for kind in kinds:
        together.setdefault((kind.group, kind.versions, kind.namespaced), []).append(kind.plural)
    for (group, versions, namespaced), plurals in together.items():
        yield {
            "operations": ["CREATE", "UPDATE"],
            "apiGroups": [group],
            "apiVersions": list(versions),
            "resources": plurals,
            "scope": "Namespaced" if namespaced else "Cluster",
        }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


def page() -> str:
    """manifests/base/webhook/validator.yaml"""
    head = _HEAD.format(enforced=" and ".join(ENFORCED))
    return head + yaml.dump(configuration(), Dumper=_Dumper, sort_keys=False, width=120)


if __name__ == "__main__":
    FILE.write_text(page())
