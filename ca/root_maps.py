"""ConfigMap `istio-ca-root-cert` in every namespace whose pods need it: who wants it, and what has to be written. Pure.

Source: Istio's namespace controller (name, key and label of the ConfigMap; namespaces that are left alone).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from svid.material import TrustBundle

NAME = "istio-ca-root-cert"
KEY = "root-cert.pem"
SEQUENCE = "heddle.dev/bundle-sequence"
LABELS = {"istio.io/config": "true", "app.kubernetes.io/managed-by": "heddle"}
LEFT_ALONE = frozenset({"kube-system", "kube-public", "kube-node-lease"})


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """Of a namespace that exists: whether its labels ask for injection, and whether it is being deleted."""

    injected: bool
    ending: bool


def namespace_facts(namespace: Mapping[str, Any]) -> NamespaceFacts:
    """The facts in a Namespace's JSON."""
    metadata = namespace.get("metadata") or {}
    labels = metadata.get("labels") or {}
    injection = labels.get("istio-injection", "")
    return NamespaceFacts(
        injected=injection == "enabled" or (injection != "disabled" and "istio.io/rev" in labels),
        ending="deletionTimestamp" in metadata or (namespace.get("status") or {}).get("phase") == "Terminating",
    )


def wanting(namespaces: Mapping[str, NamespaceFacts], with_pods: Iterable[str], control_namespace: str) -> set[str]:
    """The namespaces that get the ConfigMap: asked for by label, with an injected pod, or the control plane's."""
    asked = {name for name, facts in namespaces.items() if facts.injected}
    asked |= {name for name in with_pods if name in namespaces}
    asked |= {control_namespace} & namespaces.keys()
    return {name for name in asked - LEFT_ALONE if not namespaces[name].ending}


def root_map(namespace: str, bundle: TrustBundle) -> dict[str, Any]:
    """The ConfigMap."""
    metadata = {
        "namespace": namespace,
        "name": NAME,
        "labels": LABELS,
        "annotations": {SEQUENCE: str(bundle.sequence)},
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: bundle.pem}}


def to_write(
    namespaces: Mapping[str, NamespaceFacts],
    with_pods: Iterable[str],
    there: Mapping[str, Mapping[str, Any]],
    bundle: TrustBundle,
    control_namespace: str,
) -> list[str]:
    """The namespaces in which the ConfigMap has to be written; `there`: those that exist, by namespace.

    A namespace that no longer wants it keeps its own, as in Istio, and it is kept right: a pod may still mount it.
    """
    wanted = _to_keep(namespaces, with_pods, there, control_namespace)
    return sorted(name for name in wanted if name not in there or _is_wrong(there[name], bundle))


def carried(
    namespaces: Mapping[str, NamespaceFacts],
    with_pods: Iterable[str],
    there: Mapping[str, Mapping[str, Any]],
    bundle: TrustBundle,
    control_namespace: str,
) -> dict[str, int | None]:
    """The sequence of the bundle that each ConfigMap has, by namespace; None for one that is missing, or has something
    else in it than it says. Arguments as of `to_write`."""
    return {
        name: _sequence(there.get(name, {}), bundle)
        for name in sorted(_to_keep(namespaces, with_pods, there, control_namespace))
    }


def _to_keep(
    namespaces: Mapping[str, NamespaceFacts],
    with_pods: Iterable[str],
    there: Mapping[str, Mapping[str, Any]],
    control_namespace: str,
) -> set[str]:
    ours = {name for name, found in there.items() if _is_ours(found) and name in namespaces}
    return wanting(namespaces, with_pods, control_namespace) | {name for name in ours if not namespaces[name].ending}


def _sequence(found: Mapping[str, Any], bundle: TrustBundle) -> int | None:
    said = ((found.get("metadata") or {}).get("annotations") or {}).get(SEQUENCE, "")
    if not said.isdecimal() or (int(said) == bundle.sequence and _is_wrong(found, bundle)):
        return None
    return int(said)


def _is_ours(found: Mapping[str, Any]) -> bool:
    return SEQUENCE in ((found.get("metadata") or {}).get("annotations") or {})


def _is_wrong(found: Mapping[str, Any], bundle: TrustBundle) -> bool:
    """Whether it is not as `root_map` makes it. One of a later bundle is right: this replica has yet to hear of it."""
    sequence = ((found.get("metadata") or {}).get("annotations") or {}).get(SEQUENCE, "")
    if sequence.isdecimal() and int(sequence) > bundle.sequence:
        return False
    return (found.get("data") or {}).get(KEY) != bundle.pem or sequence != str(bundle.sequence)
