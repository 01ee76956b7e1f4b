"""Whether a pod gets a sidecar, and why. Pure.

Istio's order, from its page "Installing the Sidecar" and the selectors of its webhook: some pods never; then whoever
says no wins, pod or namespace; then whoever says yes; `istio-injection` goes before `istio.io/rev`. From pods that say
nothing themselves the mesh's own settings may take the sidecar back (`neverInjectSelector`, `policy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mesh.annotation_values import parse_truth
from mesh.annotations import INJECT, NAMESPACE_INJECTION, REVISION
from mesh.errors import InvalidInput
from mesh.injector import Policy
from mesh.label_selector import any_chooses
from mesh.objects import PROXY_CONTAINER, SIDECAR_STATUS_ANNOTATION
from webhook.config import NEVER_NAMESPACES, InjectionConfig

TOKEN_VOLUME = "istio-token"  # noqa: S105 (a name, not a secret)


class Decision(NamedTuple):
    """`reason` is a sentence for people, without the pod's name. `revision` is the one that was asked for instead of
    this webhook's, empty when the refusal has another reason."""

    inject: bool
    reason: str
    revision: str = ""


def never(pod: Mapping[str, Any], namespace: str, config: InjectionConfig) -> Decision | None:
    """The refusal that no label can change; None when labels decide."""
    if namespace in NEVER_NAMESPACES:
        return Decision(False, f"namespace {namespace} is Kubernetes' own")
    if namespace == config.control_namespace and not _truth((pod["metadata"].get("labels") or {}).get(INJECT, "")):
        return Decision(
            False, f"namespace {namespace} is the control plane's own: only what is labelled {INJECT}=true, a gateway"
        )
    if pod["spec"].get("hostNetwork"):
        return Decision(False, "it uses the host's network, where rules would intercept the whole node")
    if is_injected(pod):
        return Decision(False, "it has its sidecar already")
    return None


def decide(
    pod: Mapping[str, Any], namespace: str, namespace_labels: Mapping[str, str], config: InjectionConfig
) -> Decision:
    """Whether `pod`, which is to run in `namespace`, gets a sidecar. `pod` is Kubernetes' JSON, validated."""
    refusal = never(pod, namespace, config)
    if refusal:
        return refusal
    said, where = _own_wish(pod)
    if said is not None:
        wish = _truth(said)
        if wish is None:
            return Decision(False, f'its {where} {INJECT} is {said!r}, which is neither "true" nor "false"')
        if not wish:
            return Decision(False, f"its {where} {INJECT} is {said!r}")
    switch = namespace_labels.get(NAMESPACE_INJECTION)
    if switch == "disabled":
        return Decision(False, f"namespace {namespace} is labelled {NAMESPACE_INJECTION}=disabled")
    decision = _by_namespace(pod, namespace, namespace_labels, said, where, config)
    return _unless_the_mesh_says_no(pod, config) or decision if decision.inject and said is None else decision


def _unless_the_mesh_says_no(pod: Mapping[str, Any], config: InjectionConfig) -> Decision | None:
    """About a pod that says nothing itself and would get a sidecar: Istio's policy and selectors."""
    labels, injector = pod["metadata"].get("labels") or {}, config.injector
    if any_chooses(injector.never, labels):
        return Decision(False, "its labels match neverInjectSelector of the mesh's injection settings")
    if injector.policy is Policy.disabled and not any_chooses(injector.always, labels):
        return Decision(False, f"the mesh's injection policy is disabled, and it has no label {INJECT}=true")
    return None


def _by_namespace(
    pod: Mapping[str, Any],
    namespace: str,
    namespace_labels: Mapping[str, str],
    said: str | None,
    where: str,
    config: InjectionConfig,
) -> Decision:
    switch = namespace_labels.get(NAMESPACE_INJECTION)
    if switch == "enabled":
        return Decision(True, f"namespace {namespace} is labelled {NAMESPACE_INJECTION}=enabled")
    revision = namespace_labels.get(REVISION)
    if revision is not None:
        return _by_revision(revision, f"namespace {namespace} is labelled", config)
    if switch is not None:
        return Decision(False, f"namespace {namespace} is labelled {NAMESPACE_INJECTION}={switch}, which means nothing")
    return _without_namespace(pod, namespace, said, where, config)


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Whether the injection was here before. Its annotation alone, copied to another pod, is not enough: the proxy
    must be there, and the volume without which no injected proxy starts."""
    if SIDECAR_STATUS_ANNOTATION not in (pod["metadata"].get("annotations") or {}):
        return False
    spec = pod["spec"]
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return any(container["name"] == PROXY_CONTAINER for container in containers) and any(
        volume["name"] == TOKEN_VOLUME for volume in spec.get("volumes") or ()
    )


def _without_namespace(
    pod: Mapping[str, Any], namespace: str, said: str | None, where: str, config: InjectionConfig
) -> Decision:
    revision = (pod["metadata"].get("labels") or {}).get(REVISION)
    if revision is not None:
        return _by_revision(revision, "it is labelled", config)
    if said is not None:
        return Decision(True, f"its {where} {INJECT} is {said!r}")
    if any_chooses(config.injector.always, pod["metadata"].get("labels") or {}):
        return Decision(True, "its labels match alwaysInjectSelector of the mesh's injection settings")
    if config.by_default or config.injector.by_default:
        return Decision(True, f"namespace {namespace} does not say otherwise, and the mesh injects by default")
    return Decision(
        False, f"neither it nor namespace {namespace} asks for it: label the namespace {NAMESPACE_INJECTION}=enabled"
    )


def _by_revision(revision: str, who: str, config: InjectionConfig) -> Decision:
    if revision == config.revision:
        return Decision(True, f"{who} {REVISION}={revision}")
    if revision in config.tags:
        return Decision(True, f"{who} {REVISION}={revision}, a tag of revision {config.revision}")
    return Decision(False, f"{who} {REVISION}={revision}, and this is revision {config.revision}", revision)


def _own_wish(pod: Mapping[str, Any]) -> tuple[str | None, str]:
    meta = pod["metadata"]
    for where in ("label", "annotation"):
        said = (meta.get(f"{where}s") or {}).get(INJECT)
        if said is not None:
            return said, where
    return None, ""


def _truth(text: str) -> bool | None:
    try:
        return parse_truth(text)
    except InvalidInput:
        return None
