"""The `TrustDomain` object: where the rotation of the root stands, as `kubectl get trustdomains` shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kube.client import Client
from mesh.errors import NotFound

GROUP, VERSION, PLURAL, KIND = "heddle.dev", "v1", "trustdomains", "TrustDomain"
FINGERPRINT_CHARACTERS = 16
FIRST_NAMES = 3


def object_name(trust_domain: str) -> str:
    """A Kubernetes name for it: a trust domain may have characters that such a name may not (RFC 1123)."""
    return re.sub(r"[._-]{2,}|_", "-", trust_domain).strip("-.")[:253] or "trust-domain"


def trust_domain_object(trust_domain: str, rotation: Mapping[str, Any]) -> dict[str, Any]:
    """The object; `rotation` is the body of `GET /v1/rotation`."""
    acknowledged = rotation["acknowledged"]
    roots = rotation["roots"]
    others = [root["fingerprint"] for root in roots if root["role"] != "active"]
    active = next((root["fingerprint"] for root in roots if root["role"] == "active"), "")
    moments = {name: rotation[name] for name in ("startedAt", "since") if rotation[name]}
    unnamed = acknowledged["of"] - acknowledged["have"] - len(acknowledged["missing"])
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": object_name(trust_domain)},
        "spec": {"trustDomain": trust_domain},
        "status": {
            "phase": str(rotation["phase"]),
            "direction": rotation["direction"],
            "paused": rotation["paused"],
            "sequence": rotation["sequence"],
            "activeRoot": active[:FINGERPRINT_CHARACTERS],
            "otherRoot": others[0][:FINGERPRINT_CHARACTERS] if others else "",
            "acknowledged": f"{acknowledged['have']}/{acknowledged['of']}",
            "firstMissing": first_names(acknowledged["missing"], unnamed),
            "missing": list(acknowledged["missing"]),
            "excluded": list(acknowledged["excluded"]),
            "waitingFor": rotation["waitingFor"],
            "leaves": dict(rotation["leaves"]),
            "roots": [dict(root) for root in roots],
            **moments,
        },
    }


def first_names(names: Sequence[str], unnamed: int = 0) -> str:
    """`a, b, c and 4 more`."""
    more = len(names) - FIRST_NAMES + unnamed if len(names) > FIRST_NAMES else unnamed
    return ", ".join(names[:FIRST_NAMES]) + (f" and {more} more" if names and more > 0 else "")


def write(client: Client, body: Mapping[str, Any]) -> None:
    """Make the object so. Needs the rights to `patch` trustdomains and trustdomains/status, and to `create` them."""
    path = f"/apis/{GROUP}/{VERSION}/{PLURAL}/{body['metadata']['name']}"
    whole = {name: body[name] for name in ("apiVersion", "kind", "metadata", "spec")}
    status = {name: body[name] for name in ("apiVersion", "kind", "metadata", "status")}
    try:
        client.apply(f"{path}/status", status)
    except NotFound:  # the first time, or somebody has removed it
        client.apply(path, whole)
        client.apply(f"{path}/status", status)
