"""The status of Istio's kinds, which discovery writes: Istio's conditions and messages, and which proxies have it."""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
# Istio's CRDs take text here too, and objects that istiod wrote may hold it.
_GENERATION: dict[str, Any] = {"x-kubernetes-int-or-string": True}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}

STATUS: dict[str, Any] = {
    "description": "What became of the object. Written by the control plane.",
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        "observedGeneration": {"description": "The generation that the rest is about.", **_GENERATION},
        "conditions": {
            "description": "Accepted: the object is in order. Reconciled: every proxy that it is for has applied it.",
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"description": "Name of the condition.", **_TEXT},
                    "status": {"description": "True, False or Unknown.", **_TEXT},
                    "reason": {"description": "One word for machines.", **_TEXT},
                    "message": {"description": "A sentence for people.", **_TEXT},
                    "lastTransitionTime": {"description": "When the status became what it is.", **_TIME},
                    "lastProbeTime": {"description": "When it was last looked at.", **_TIME},
                    "observedGeneration": {"description": "The generation that the condition is about.", **_GENERATION},
                },
            },
        },
        "validationMessages": {
            "description": "Findings about the object.",
            "type": "array",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
        "heddle": {
            "description": "What only Heddle tells.",
            "type": "object",
            "properties": {
                "proxies": {
                    "description": "The proxies whose configuration comes from this object too.",
                    "type": "object",
                    "properties": {
                        "applied": {"description": "How many have applied it as it is now.", **_COUNT},
                        "total": {"description": "How many it is for.", **_COUNT},
                        "refused": {
                            "description": "Those whose Envoy has refused it; not more than a few are named.",
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "pod": {"description": "`namespace/name` of the pod.", **_TEXT},
                                    "resource": {"description": "The Envoy resource that was refused.", **_TEXT},
                                    "message": {"description": "What Envoy says.", **_TEXT},
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
