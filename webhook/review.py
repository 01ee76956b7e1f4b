"""AdmissionReview v1 in, AdmissionReview v1 out. Pure: bytes and a lookup of namespaces in, bytes and an outcome out.

What is wrong with the request is an HTTP status; what is wrong with the pod is an admission answer, which whoever
creates the pod gets to read.
Source: Kubernetes' "Dynamic Admission Control" (request and response, patches, warnings), RFC 6902.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import orjson

from mesh.errors import HeddleError, InvalidInput
from mesh.problems import ObjectErrors
from webhook.config import InjectionConfig, for_pod
from webhook.decision import Decision, decide, never
from webhook.envelope import Raw, answer, request_of
from webhook.gate import for_namespace
from webhook.inject import advice, inject, pod_name
from webhook.patch import check_patch, make_patch
from webhook.shape import check_pod

_LONGEST_WARNINGS = 10

NamespaceLabels = Callable[[str], Mapping[str, str]]
"""Labels of a namespace by name; raises HeddleError (Unavailable) when they are not known."""


class Result(StrEnum):
    """What became of a request; `skipped` is allowed without a change."""

    INJECTED = "injected"
    SKIPPED = "skipped"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer, as bytes, and what to log of it."""

    body: bytes
    result: Result
    about: str
    reason: str


LeadsHere = Callable[[str], bool]
"""Whether pods of a revision that is not known are sent here; raises HeddleError when that cannot be asked."""


def review(
    body: bytes,
    content_type: str,
    namespace_labels: NamespaceLabels,
    config: InjectionConfig,
    leads_here: LeadsHere = lambda _revision: False,
) -> Outcome:
    """Answer one request. Raises Unsupported (415), TooLarge (413) or InvalidInput (400) for one that is no review."""
    request = request_of(body, content_type)
    uid = request["uid"]
    ignored = _not_for_us(request)
    if ignored:
        return _allowed(uid, Decision(False, ignored), str(request.get("name") or ""))
    namespace = request.get("namespace") or ""
    about = f"Pod {namespace}/{request.get('name') or '*'}" if namespace else "Pod"
    try:
        pod = check_pod(request.get("object"), about)
        about = pod_name(pod, namespace)
        namespace = namespace or pod["metadata"].get("namespace") or "default"
        decision = _decision(pod, namespace, namespace_labels, config, leads_here)
        if not decision.inject:
            return _allowed(uid, decision, about)
        config = for_namespace(config, namespace, namespace_labels(namespace))
        config = for_pod(config, namespace, pod["metadata"].get("labels") or {})
        return _injected(uid, pod, body, config, decision, about)
    except InvalidInput as error:
        return _denied(uid, about, error)


def refusal(body: bytes, message: str) -> Outcome:
    """The answer to a review, known to be one, that went wrong in a way that nobody foresaw."""
    uid = orjson.loads(body)["request"]["uid"]
    return _denied(uid, "Pod", HeddleError(message))


def _decision(
    pod: Raw, namespace: str, namespace_labels: NamespaceLabels, config: InjectionConfig, leads_here: LeadsHere
) -> Decision:
    refusal_ = never(pod, namespace, config)
    if refusal_:
        return refusal_
    labels = namespace_labels(namespace)
    decision = decide(pod, namespace, labels, config)
    # A tag may be younger than what the watch has shown: a pod must not slip through without its sidecar.
    if decision.revision and leads_here(decision.revision):
        return decide(pod, namespace, labels, replace(config, tags=config.tags | {decision.revision}))
    return decision


def _injected(uid: str, pod: Raw, body: bytes, config: InjectionConfig, decision: Decision, about: str) -> Outcome:
    injected = inject(pod, config, about)
    patch = make_patch(pod, injected)
    # A copy that shares nothing with the pod, by way of the only thing that is certain to be unchanged: what was sent.
    check_patch(patch, orjson.loads(body)["request"]["object"], injected)
    return _allowed(uid, decision, about, patch, advice(pod, config))


def _not_for_us(request: Raw) -> str:
    """Why a request is let through unread; empty when it is the creation of a pod."""
    kind, resource = request.get("kind") or {}, request.get("resource") or {}
    if (kind.get("group") or "", kind.get("kind")) != ("", "Pod") or resource.get("resource", "pods") != "pods":
        return f"only pods get a sidecar, this is {kind.get('kind') or 'nothing with a kind'}"
    if request.get("subResource"):
        return f"this is about {request['subResource']} of a pod"
    if request.get("operation") != "CREATE":
        return f"pods get their sidecar when they are created, this is {request.get('operation') or 'no operation'}"
    return ""


def _allowed(
    uid: str, decision: Decision, about: str, patch: list[Raw] | None = None, warnings: list[str] | None = None
) -> Outcome:
    response: Raw = {"uid": uid, "allowed": True}
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(orjson.dumps(patch)).decode()
    if warnings:
        response["warnings"] = warnings[:_LONGEST_WARNINGS]
    result = Result.INJECTED if decision.inject else Result.SKIPPED
    return Outcome(answer(response), result, about, decision.reason)


def _denied(uid: str, about: str, error: HeddleError) -> Outcome:
    message = str(error) if isinstance(error, ObjectErrors) else f"{about}: {error}"
    response = {
        "uid": uid,
        "allowed": False,
        "status": {"status": "Failure", "message": message, "reason": "BadRequest", "code": error.status},
    }
    return Outcome(answer(response), Result.DENIED, about, message)
