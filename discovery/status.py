"""`GET /v1/status`: every proxy, what it has applied against what is current, and what is wrong. Pure.

`ready`: every proxy is connected, has applied what is current, and refuses none of it. A pod that was injected and has
an address is expected to have a proxy, so that one that never came is seen; finished and terminating pods are not. A
mesh without any proxy is ready: nothing in it is behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from discovery.findings import Finding
from discovery.versions import Held, set_version
from mesh.identity import Identity
from mesh.objects import Key, Pod
from mesh.snapshot import Snapshot
from mesh.wire import Applied, ResourceType

PROXY_TYPES = tuple(str(kind) for kind in ResourceType)


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type of one proxy. `current` and `applied` are hashes of the whole set; `applied` "" means nothing yet.

    `since` (RFC 3339): when Envoy took what it runs; `rejected`: what it refuses, in its own words.
    """

    current: str
    applied: str
    count: int
    lagging: bool
    since: str = ""
    rejected: tuple[Mapping[str, str], ...] = ()

    @property
    def up_to_date(self) -> bool:
        return self.current == self.applied and not self.lagging and not self.rejected

    def as_json(self) -> dict[str, Any]:
        return {
            "current": self.current,
            "applied": self.applied,
            "count": self.count,
            "upToDate": self.up_to_date,
            "since": self.since,
            "rejected": list(self.rejected),
        }


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One proxy. `kind`: `agent`, or `bare` for an Envoy without one. `failed`: what it should have could not be
    computed, and it keeps what it has."""

    key: Key
    kind: str
    ip: str
    identity: str
    role: str
    envoy_version: str
    agent_version: str
    connected: bool
    since: str
    last_seen: str
    sequence: int
    failed: bool
    types: Mapping[str, TypeStatus]

    @property
    def up_to_date(self) -> bool:
        return self.connected and not self.failed and all(each.up_to_date for each in self.types.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "namespace": self.key.namespace,
            "pod": self.key.name,
            "kind": self.kind,
            "ip": self.ip,
            "identity": self.identity,
            "role": self.role,
            "envoyVersion": self.envoy_version,
            "agentVersion": self.agent_version,
            "connected": self.connected,
            "connectedSince": self.since,
            "lastSeen": self.last_seen,
            "sequence": self.sequence,
            "failed": self.failed,
            "upToDate": self.up_to_date,
            "types": {kind: state.as_json() for kind, state in self.types.items()},
        }


def type_status(
    current: Mapping[str, str], wanted: Held, in_force: Held, lagging: Iterable[str], applied: Mapping[str, Applied]
) -> dict[str, TypeStatus]:
    """By type. `current`: hashes of the sets in `wanted`; `in_force`: the sets that Envoy has taken."""
    behind = frozenset(lagging)
    found: dict[str, TypeStatus] = {}
    for kind in PROXY_TYPES:
        has, should = in_force.get(kind), wanted.get(kind, {})
        if not has and not should:
            continue
        state = applied.get(kind)
        found[kind] = TypeStatus(
            current=current.get(kind) or set_version({}),
            applied=current.get(kind, "") if has is should else set_version(has) if has is not None else "",
            count=len(should),
            lagging=kind in behind,
            since=state.since if state else "",
            rejected=tuple(rejection.as_json() for rejection in state.rejected) if state else (),
        )
    return found


def missing(snapshot: Snapshot, present: Iterable[Key]) -> list[ProxyStatus]:
    """A status for each injected pod whose proxy is not connected and has no session."""
    known = set(present)
    return [
        _absent(pod, snapshot.settings.trust_domain)
        for key, pod in snapshot.pods.items()
        if key not in known and pod.has_sidecar and pod.ip and not pod.finished and not pod.deleting
    ]


def _absent(pod: Pod, trust_domain: str) -> ProxyStatus:
    return ProxyStatus(
        key=pod.meta.key,
        kind="agent",
        ip=pod.ip,
        identity=str(Identity(trust_domain, pod.meta.namespace, pod.service_account)),
        role="",
        envoy_version="",
        agent_version="",
        connected=False,
        since="",
        last_seen="",
        sequence=0,
        failed=False,
        types={},
    )


def status_json(
    observed: int, synced: bool, proxies: Iterable[ProxyStatus], findings: Iterable[Finding]
) -> dict[str, Any]:
    """The whole answer, sorted; equal findings of many proxies are one."""
    listed = sorted(proxies, key=lambda proxy: (proxy.key, proxy.kind))
    return {
        "ready": synced and all(proxy.up_to_date for proxy in listed),
        "observed": observed,
        "proxies": [proxy.as_json() for proxy in listed],
        "problems": [finding.as_json() for finding in sorted(set(findings))],
    }
