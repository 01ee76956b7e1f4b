"""Events of events.k8s.io/v1 that people see at an object: in `kubectl describe`, for an hour in `kubectl get events`.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LONGEST_NOTE = 1000  # bytes; the API allows 1,024
LONGEST_INSTANCE = 128
_LONGEST_STEM = 236  # of a name, which the API lets have 253 characters


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object; `field_path` says which part of it, if only one is meant."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    field_path: str = ""


@dataclass(frozen=True, slots=True)
class Reporting:
    """Who says what is said: `reason` of `action`, both in CamelCase, by one `instance` of `controller`."""

    reason: str
    action: str
    controller: str
    instance: str


def collection(namespace: str) -> str:
    """The path at which events of `namespace` are created."""
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def note_of(text: str) -> str:
    """As much of `text` as a note may have."""
    return text.encode()[:LONGEST_NOTE].decode(errors="ignore")


def name_of(regarding: Regarding, note: str, at: float) -> str:
    """The name of the event: another for another object, note or time."""
    digest = hashlib.sha256(f"{regarding.uid}\n{note}\n{at}".encode()).hexdigest()[:16]
    return f"{regarding.name[:_LONGEST_STEM].rstrip('.-')}.{digest}"


def micro_time(at: float) -> str:
    """`at` (seconds since the epoch) as Kubernetes' MicroTime."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def warning(regarding: Regarding, by: Reporting, note: str, at: float) -> dict[str, Any]:
    """The Event, as the API server takes it; `at` in seconds since the epoch."""
    about = {
        "apiVersion": regarding.api_version,
        "kind": regarding.kind,
        "namespace": regarding.namespace,
        "name": regarding.name,
        "uid": regarding.uid,
    }
    if regarding.field_path:
        about["fieldPath"] = regarding.field_path
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": regarding.namespace, "name": name_of(regarding, note, at)},
        "type": "Warning",
        "reason": by.reason,
        "action": by.action,
        "note": note_of(note),
        "eventTime": micro_time(at),
        "regarding": about,
        "reportingController": by.controller,
        "reportingInstance": by.instance[:LONGEST_INSTANCE],
    }
