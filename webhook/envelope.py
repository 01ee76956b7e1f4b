"""AdmissionReview v1: the envelope of what API servers ask and are answered. Pure.

What is wrong with the envelope is an HTTP status; what is wrong with the object is an admission answer.
Source: Kubernetes' "Dynamic Admission Control" (request and response, warnings).
"""

from __future__ import annotations

from typing import Any

import orjson

from mesh.errors import InvalidInput, TooLarge, Unsupported

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"
MAX_OBJECT = 3 << 20  # bytes: the API server's own limit for an object

Raw = dict[str, Any]


def request_of(body: bytes, content_type: str, most: int = MAX_OBJECT) -> Raw:
    """What is asked. Raises Unsupported (415), TooLarge (413) or InvalidInput (400) for what is no review."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Unsupported(f"the content type is {content_type or 'missing'}", hint="send application/json")
    if len(body) > most:
        raise TooLarge(f"the review has {len(body)} bytes, more than {most}")
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None
    if not isinstance(envelope, dict):
        raise InvalidInput("the body is not an AdmissionReview", hint="send a JSON object")
    return _request(envelope)


def _request(envelope: Raw) -> Raw:
    kind, version = envelope.get("kind"), envelope.get("apiVersion")
    if kind != KIND or version != API_VERSION:
        raise InvalidInput(
            f"{version} {kind} is not spoken here",
            field="apiVersion" if kind == KIND else "kind",
            hint=f"send {API_VERSION} {KIND} (admissionReviewVersions: [v1])",
        )
    request = envelope.get("request")
    if not isinstance(request, dict):
        raise InvalidInput("is missing", field="request")
    for name, required in (("uid", True), ("namespace", False), ("name", False), ("operation", False)):
        value = request.get(name)
        if (required and not value) or (value is not None and not isinstance(value, str)):
            raise InvalidInput("must be text", field=f"request.{name}")
    for name in ("kind", "resource"):
        if not isinstance(request.get(name) or {}, dict):
            raise InvalidInput("must be an object", field=f"request.{name}")
    return request


def answer(response: Raw) -> bytes:
    """The envelope round `response`."""
    return orjson.dumps({"apiVersion": API_VERSION, "kind": KIND, "response": response})
