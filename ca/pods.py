"""Whether a pod exists, asked of the API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ca.callers import PodFacts, PodLookup
from kube.client import Client
from mesh.errors import HeddleError, NotFound, Unavailable


def ask_api(client: Client) -> PodLookup:
    """One GET for each question: never stale. Needs the right to `get` pods."""

    def lookup(namespace: str, name: str) -> PodFacts | None:
        try:
            return facts_of(client.get(f"/api/v1/namespaces/{namespace}/pods/{name}"))
        except NotFound:
            return None
        except Unavailable:
            raise
        except HeddleError as error:
            raise Unavailable(f"whether pod {namespace}/{name} exists cannot be told: {error}") from None

    return lookup


def facts_of(pod: Mapping[str, Any]) -> PodFacts:
    """The facts in a Pod's JSON. Admission fills in `serviceAccountName`; a pod without one runs as `default`."""
    spec = pod.get("spec") or {}
    return PodFacts(
        uid=(pod.get("metadata") or {}).get("uid", ""),
        service_account=spec.get("serviceAccountName") or "default",
        node=spec.get("nodeName", ""),
    )
