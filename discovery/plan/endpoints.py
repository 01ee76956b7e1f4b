"""Who answers for a service: the ready endpoints of its slices, joined with their pods and those pods' TLS.

The join is kept per service, and only redone for services of which a slice or a pod is another object than before.
Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/ (one endpoint may stand in two slices
for a while; an endpoint that terminates is not ready).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from discovery.plan.memo import Memo, changed_keys
from discovery.plan.model import Endpoint, PeerTls
from discovery.plan.peer_authentication import PeerModes, PeerPolicies
from discovery.plan.workloads import takes_mesh_tls
from mesh.objects import EndpointSlice, Key, Pod


class Backend(NamedTuple):
    """An endpoint, with its pod for those who choose by labels (None where the address is no pod)."""

    endpoint: Endpoint
    pod: Pod | None


@dataclass(frozen=True, slots=True, eq=False)
class Backends:
    """All of one service. `by_port`: service port name -> ready ones, sorted by address.

    `identities` are the SPIFFE IDs of all pods behind it, ready or not, so that readiness alone changes no client's
    TLS settings. `known` counts endpoints, ready or not.
    """

    by_port: Mapping[str, tuple[Backend, ...]]
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    identities: tuple[str, ...]
    known: int
    all_mesh: bool
    """There are endpoints, and each of them takes mesh TLS."""


NOBODY = Backends({}, {}, (), 0, False)


@dataclass(frozen=True, slots=True, eq=False)
class AllBackends:
    """`of`: service -> its backends. The rest is what the next build compares with."""

    of: Mapping[Key, Backends]
    joined: Mapping[EndpointSlice, _Joined]
    pods: Mapping[Key, Pod]


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """The pods of one slice, endpoint by endpoint. The same object as long as slice and pods are the same."""

    keys: frozenset[Key]
    pods: tuple[Pod | None, ...]


def all_backends(
    memo: Memo,
    before: AllBackends | None,
    slices: Mapping[Key, EndpointSlice],
    pods: Mapping[Key, Pod],
    policies: PeerPolicies,
    trust_domain: str,
) -> AllBackends:
    changed = changed_keys(before.pods, pods) if before else set()
    known = before.joined if before else {}
    joined: dict[EndpointSlice, _Joined] = {}
    services: dict[Key, list[EndpointSlice]] = {}
    for piece in slices.values():
        services.setdefault(piece.service, []).append(piece)
        kept = known.get(piece)
        if kept is None or (changed and not changed.isdisjoint(kept.keys)):
            kept = _join(piece, pods)
        joined[piece] = kept
    of: dict[Key, Backends] = {}
    for service, pieces in services.items():
        if len(pieces) > 1:
            pieces.sort(key=lambda piece: piece.meta.name)
        of[service] = memo(_backends, tuple(pieces), tuple(joined[piece] for piece in pieces), policies, trust_domain)
    return AllBackends(of, joined, pods)


def _join(piece: EndpointSlice, pods: Mapping[Key, Pod]) -> _Joined:
    keys = frozenset(endpoint.pod for endpoint in piece.endpoints if endpoint.pod)
    found = tuple(pods.get(endpoint.pod) if endpoint.pod else None for endpoint in piece.endpoints)
    return _Joined(keys, found)


def _backends(
    pieces: tuple[EndpointSlice, ...],
    joined: tuple[_Joined, ...],
    policies: PeerPolicies,
    trust_domain: str,
) -> Backends:
    facts: dict[Pod, tuple[str, str, PeerModes | None]] = {}
    ready: dict[str, dict[tuple[str, int], Pod | None]] = {}
    known = set()
    for piece, join in zip(pieces, joined, strict=True):
        for endpoint, pod in zip(piece.endpoints, join.pods, strict=True):
            known.add(endpoint.address)
            if pod is not None and pod not in facts:
                facts[pod] = _facts(pod, policies, trust_domain)
            if not endpoint.ready or endpoint.terminating:
                continue
            for name, number in piece.ports.items():
                ready.setdefault(name, {}).setdefault((endpoint.address, number), pod)
    by_port = {name: _sorted(found, facts) for name, found in ready.items()}
    return Backends(
        by_port=by_port,
        endpoints={name: tuple(backend.endpoint for backend in found) for name, found in by_port.items()},
        identities=tuple(sorted({identity for identity, _, _ in facts.values()})),
        known=len(known),
        all_mesh=bool(by_port) and all(b.endpoint.mesh_tls for found in by_port.values() for b in found),
    )


def _facts(pod: Pod, policies: PeerPolicies, trust_domain: str) -> tuple[str, str, PeerModes | None]:
    namespace = pod.meta.namespace
    identity = f"spiffe://{trust_domain}/ns/{namespace}/sa/{pod.service_account}"
    modes = policies.of_workload(namespace, pod.meta.labels) if takes_mesh_tls(pod) else None
    return identity, f"{namespace}/{pod.meta.name}", modes


def _sorted(
    found: Mapping[tuple[str, int], Pod | None], facts: Mapping[Pod, tuple[str, str, PeerModes | None]]
) -> tuple[Backend, ...]:
    backends = []
    for address, port in sorted(found):
        pod = found[address, port]
        if pod is None:
            backends.append(Backend(Endpoint(address, port, False), None))
        else:
            identity, workload, modes = facts[pod]
            takes = modes is not None and modes.on(port) is not PeerTls.DISABLE
            backends.append(Backend(Endpoint(address, port, takes, identity, workload), pod))
    return tuple(backends)


def chosen(backends: Backends, port_name: str, labels: tuple[tuple[str, str], ...]) -> tuple[Endpoint, ...]:
    """The ready endpoints of a port whose pods have all `labels` (a subset's), or all of them."""
    if not labels:
        return backends.endpoints.get(port_name, ())
    return tuple(
        backend.endpoint
        for backend in backends.by_port.get(port_name, ())
        if backend.pod is not None and all(backend.pod.meta.labels.get(key) == value for key, value in labels)
    )
