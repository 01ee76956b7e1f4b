"""Whether a pod exists: from a watch while it is alive, else by asking the API server.

The watch is only believed about the very uid that is asked for, and once the pod has its node; everything else is asked
for by GET, so a pod that was created a moment ago is found, and one that the watch lost is not refused. A pod that was
deleted is known for as long as the event takes, at most `STALE` seconds if the connection died unnoticed
(docs/adr/0013-callers.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ca.callers import PodFacts, PodLookup
from kube.client import Client
from kube.source import Changed, Event, Listed, Source, Watched
from mesh.errors import HeddleError, NotFound, Unavailable

# Seconds without an event or bookmark after which the watch is not believed. An API server sends a bookmark a minute.
STALE = 90.0


def ask_api(client: Client) -> PodLookup:
    """One GET for each question: never stale. Needs the right to `get` pods."""

    def lookup(namespace: str, name: str, _uid: str) -> PodFacts | None:
        try:
            return facts_of(client.get(f"/api/v1/namespaces/{namespace}/pods/{name}"))
        except NotFound:
            return None
        except Unavailable:
            raise
        except HeddleError as error:
            raise Unavailable(f"whether pod {namespace}/{name} exists cannot be told: {error}") from None

    return lookup


class PodWatch:
    """A PodLookup; `otherwise` is asked for what the watch does not know. Call `start` once."""

    def __init__(self, otherwise: PodLookup, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._otherwise = otherwise
        self._monotonic = monotonic
        self._pods: dict[tuple[str, str], PodFacts] = {}
        self._heard = float("-inf")

    def start(self, client: Client, *others: Callable[[Event], None]) -> Source:
        """Watch all pods of the cluster, for `others` too. Needs the right to `list` and `watch` pods; without it, each
        is asked for."""

        def take(event: Event) -> None:
            self.take(event)
            for other in others:
                other(event)

        source = Source([Watched("Pod", "/api/v1/pods")], client)
        source.start(take)
        return source

    def __call__(self, namespace: str, name: str, uid: str) -> PodFacts | None:
        return self.known(namespace, name, uid) or self._otherwise(namespace, name, uid)

    def known(self, namespace: str, name: str, uid: str) -> PodFacts | None:
        """What the watch knows; None where it has to be asked for."""
        facts = self._pods.get((namespace, name))
        if facts is not None and facts.uid == uid and facts.node and self._monotonic() - self._heard < STALE:
            return facts
        return None

    def take(self, event: Event) -> None:
        """One event of the watch, in order, from its one thread."""
        match event:
            case Listed(objects=objects):
                self._pods = {_key(pod): facts_of(pod) for pod in objects}
            case Changed(object=pod, deleted=True):
                self._pods.pop(_key(pod), None)
            case Changed(object=pod):
                self._pods[_key(pod)] = facts_of(pod)
        self._heard = self._monotonic()


def facts_of(pod: Mapping[str, Any]) -> PodFacts:
    """The facts in a Pod's JSON. Admission fills in `serviceAccountName`; a pod without one runs as `default`."""
    spec, metadata = pod.get("spec") or {}, pod.get("metadata") or {}
    return PodFacts(
        uid=metadata.get("uid", ""),
        service_account=spec.get("serviceAccountName") or "default",
        node=spec.get("nodeName", ""),
        deleting=bool(metadata.get("deletionTimestamp")),
        finished=(pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"),
    )


def _key(pod: Mapping[str, Any]) -> tuple[str, str]:
    meta = pod.get("metadata") or {}
    return meta.get("namespace", ""), meta.get("name", "")
