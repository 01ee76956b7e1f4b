"""The Secrets that gateways serve certificates from, and no others, as the API server has them.

A gateway needs what a Gateway that selects it names by `credentialName`, in the namespace of its own pod. Each is
watched by its name, so that no other Secret comes into this process, and rights may be given for those names alone
(docs/adr/0157-secrets-of-gateways.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent

from discovery.findings import Finding
from discovery.plan.workloads import is_gateway
from discovery.secrets import CA_SUFFIX
from kube.client import Client, Refused
from kube.source import Changed, Event, Listed, Source, Watched, list_path
from mesh.istio.gateway import Gateway, ServerTLSMode
from mesh.objects import Key
from mesh.snapshot import Snapshot

KIND = "Secret"
LINGER_SECONDS = 60.0
"""A Secret that nobody needs any more is watched a little longer: the last pod of a gateway may be replaced."""


def needed(snapshot: Snapshot) -> frozenset[Key]:
    """The Secrets that the gateways of `snapshot` may serve from. Pure."""
    served = [
        (dict(gateway.spec.selector), names)
        for gateway in snapshot.of("Gateway").values()
        if (names := frozenset(_names(gateway.spec)))
    ]
    if not served:
        return frozenset()
    return frozenset(
        Key(pod.meta.namespace, name)
        for pod in snapshot.pods.values()
        if is_gateway(pod)
        for selector, names in served
        if selector.items() <= pod.meta.labels.items()
        for name in names
    )


def _names(spec: Gateway) -> Iterator[str]:
    """Of certificates, and of bundles to check clients with, which may be in Secrets of their own."""
    for server in spec.servers:
        if server.tls is not None and server.tls.credential_name:
            yield server.tls.credential_name
            if server.tls.mode is ServerTLSMode.MUTUAL:
                yield server.tls.credential_name + CA_SUFFIX


@dataclass(slots=True, eq=False)
class _Followed:
    source: Source
    known: bool = False
    unneeded_since: float | None = None


class GatewaySecrets:
    """Watches those that are needed. `take` hears of each change; `clock`: monotonic seconds."""

    def __init__(
        self, client: Client, take: Callable[[Event], None], clock: Callable[[], float], control_namespace: str
    ) -> None:
        self._client, self._take, self._clock = client, take, clock
        self._account = f"{control_namespace}:heddle-discovery"
        self._followed: dict[Key, _Followed] = {}
        self._seen: tuple[Any, Any] = (None, None)

    def follow(self, snapshot: Snapshot) -> None:
        """Begin with those that `snapshot` needs and that are not watched; end those that were not needed for long."""
        seen = (snapshot.pods, snapshot.istio.get("Gateway"))
        lingering = any(each.unneeded_since is not None for each in self._followed.values())
        if seen[0] is self._seen[0] and seen[1] is self._seen[1] and not lingering:
            return
        self._seen = seen
        wanted, now = needed(snapshot), self._clock()
        for key in wanted - self._followed.keys():
            self._begin(key)
        for key, followed in list(self._followed.items()):
            if key in wanted:
                followed.unneeded_since = None
            elif followed.unneeded_since is None:
                followed.unneeded_since = now
            elif now - followed.unneeded_since > LINGER_SECONDS:
                self._end(key)

    @property
    def settled(self) -> bool:
        """Whether each that is watched was read, or cannot be."""
        return all(each.source.synced() or each.source.troubles() for each in self._followed.values())

    def findings(self) -> Iterator[Finding]:
        """Those that cannot be read, and the way out."""
        for key, followed in self._followed.items():
            for error in followed.source.troubles().values():
                hint = grant(key.namespace, self._account) if isinstance(error, Refused) else error.hint or ""
                effect = "what was known of it stays in force"
                yield Finding(KIND, key.namespace, key.name, "", error.message, hint, effect)

    def _begin(self, key: Key) -> None:
        path = list_path("", "v1", "secrets", key.namespace)
        source = Source([Watched(KIND, path, {"fieldSelector": f"metadata.name={key.name}"})], self._client)
        followed = self._followed[key] = _Followed(source)
        source.start(lambda event: self._told(key, followed, event))

    def _end(self, key: Key) -> None:
        followed = self._followed.pop(key)
        gevent.spawn(followed.source.stop)  # which waits
        self._gone(key, followed, 0)

    def _told(self, key: Key, followed: _Followed, event: Event) -> None:
        """A list of one Secret is no list of all: it is told as a change."""
        if self._followed.get(key) is not followed:
            return
        match event:
            case Listed(objects=(raw, *_)):
                followed.known = True
                self._take(Changed(KIND, raw, False, event.resource_version))
            case Listed():
                self._gone(key, followed, event.resource_version)
            case Changed(deleted=deleted):
                followed.known = not deleted
                self._take(event)

    def _gone(self, key: Key, followed: _Followed, version: int) -> None:
        if followed.known:
            followed.known = False
            metadata = {"namespace": key.namespace, "name": key.name}
            self._take(Changed(KIND, {"metadata": metadata}, True, version))


def grant(namespace: str, account: str) -> str:
    """The commands that let discovery, as `account`, read a gateway's Secrets in `namespace`."""
    role = f"kubectl -n {namespace} create role heddle-gateway-secrets --verb=list,watch --resource=secrets"
    binding = "create rolebinding heddle-gateway-secrets --role=heddle-gateway-secrets"
    return f"{role} && kubectl -n {namespace} {binding} --serviceaccount={account}"
