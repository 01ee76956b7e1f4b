"""Who answers for a service: the ready endpoints of its slices, joined with their pods and those pods' TLS.

The join is kept per service, and only redone for services of which a slice or a pod is another object than before.
Sources: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/ (one endpoint may stand in two slices
for a while; a dual-stack service has slices of each IP family), and KEP-1669: what terminates is not ready, and still
asked as long as it serves and nobody else is ready (the last pod of a deployment that is replaced, say).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from discovery.plan.memo import changed_keys
from discovery.plan.model import Endpoint, PeerTls
from discovery.plan.peer_authentication import PeerModes, PeerPolicies
from discovery.plan.workloads import takes_mesh_tls
from mesh.objects import EndpointSlice, Key, Pod, SliceEndpoint
from mesh.workloads import Workload, workload_of


class Backend(NamedTuple):
    """An endpoint, with its pod for those who choose by labels (None where the address is no pod), and its place."""

    endpoint: Endpoint
    pod: Pod | None
    node: str = ""
    zone: str = ""


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
    mixed: bool = False
    """Some have IPv4 addresses, some IPv6 ones."""


NOBODY = Backends({}, {}, (), 0, False)


@dataclass(frozen=True, slots=True, eq=False)
class AllBackends:
    """`of`: service -> its backends. The rest is what they were made of, which the next build compares with."""

    of: Mapping[Key, Backends]
    mixed: bool
    """Endpoints of some service have addresses of both IP versions."""
    slices: Mapping[Key, EndpointSlice]
    pods: Mapping[Key, Pod]
    policies: PeerPolicies
    trust_domain: str
    pieces: Mapping[Key, tuple[EndpointSlice, ...]]
    """Service -> its slices, by name."""
    joined: Mapping[EndpointSlice, _Joined]


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """The pods of one slice, endpoint by endpoint."""

    keys: frozenset[Key]
    pods: tuple[Pod | None, ...]


def all_backends(
    before: AllBackends | None,
    slices: Mapping[Key, EndpointSlice],
    pods: Mapping[Key, Pod],
    policies: PeerPolicies,
    trust_domain: str,
) -> AllBackends:
    """Those of `before`, and anew those of services of which a slice or a pod is another object now."""
    if before is None or before.policies is not policies or before.trust_domain != trust_domain:
        before = AllBackends({}, False, {}, {}, policies, trust_domain, {}, {})
    pieces, joined, of = dict(before.pieces), dict(before.joined), dict(before.of)
    touched: set[Key] = set()
    for key in changed_keys(before.slices, slices):
        old, new = before.slices.get(key), slices.get(key)
        if old is not None:
            del joined[old]
            pieces[old.service] = tuple(piece for piece in pieces[old.service] if piece is not old)
            touched.add(old.service)
        if new is not None:
            pieces[new.service] = tuple(sorted((*pieces.get(new.service, ()), new), key=_by_name))
            touched.add(new.service)
    changed = changed_keys(before.pods, pods)
    for piece in [piece for piece, join in joined.items() if not changed.isdisjoint(join.keys)] if changed else ():
        del joined[piece]
        touched.add(piece.service)
    for service in touched:
        found = pieces[service]
        if not found:
            del pieces[service], of[service]
            continue
        for piece in found:
            if piece not in joined:
                joined[piece] = _join(piece, pods)
        of[service] = _backends(found, tuple(joined[piece] for piece in found), policies, trust_domain)
    mixed = any(each.mixed for each in of.values())
    return AllBackends(of, mixed, slices, pods, policies, trust_domain, pieces, joined)


def _by_name(piece: EndpointSlice) -> str:
    return piece.meta.name


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
    facts: dict[Pod, _Facts] = {}
    ready, leaving = _Found(), _Found()
    known = set()
    for piece, join in zip(pieces, joined, strict=True):
        for endpoint, pod in zip(piece.endpoints, join.pods, strict=True):
            known.add(endpoint.address)
            if pod is not None and pod not in facts:
                facts[pod] = _facts(pod, policies, trust_domain)
            if endpoint.ready:
                ready.add(piece, endpoint, pod)
            elif endpoint.serving and endpoint.terminating:
                leaving.add(piece, endpoint, pod)
    by_port = {name: _sorted(found, facts) for name, found in (ready or leaving).items()}
    return Backends(
        by_port=by_port,
        endpoints={name: tuple(backend.endpoint for backend in found) for name, found in by_port.items()},
        identities=tuple(sorted({each.identity for each in facts.values()})),
        known=len(known),
        all_mesh=bool(by_port) and all(b.endpoint.mesh_tls for found in by_port.values() for b in found),
        mixed=len({":" in address for address in known}) > 1,
    )


class _Found(dict[str, dict[tuple[str, int], tuple[SliceEndpoint, Pod | None]]]):
    """Port name -> address and number -> the endpoint and its pod."""

    def add(self, piece: EndpointSlice, endpoint: SliceEndpoint, pod: Pod | None) -> None:
        for name, number in piece.ports.items():
            self.setdefault(name, {}).setdefault((endpoint.address, number), (endpoint, pod))


class _Facts(NamedTuple):
    """Of a pod. `modes` is None where no sidecar answers for it."""

    identity: str
    workload: str
    modes: PeerModes | None
    reported: Workload


def _facts(pod: Pod, policies: PeerPolicies, trust_domain: str) -> _Facts:
    namespace = pod.meta.namespace
    identity = f"spiffe://{trust_domain}/ns/{namespace}/sa/{pod.service_account}"
    modes = policies.of_workload(namespace, pod.meta.labels) if takes_mesh_tls(pod) else None
    reported = workload_of(pod.workload or pod.meta.name, namespace, pod.meta.labels)
    return _Facts(identity, f"{namespace}/{pod.meta.name}", modes, reported)


def _sorted(
    found: Mapping[tuple[str, int], tuple[SliceEndpoint, Pod | None]],
    facts: Mapping[Pod, _Facts],
) -> tuple[Backend, ...]:
    backends: list[Backend] = []
    for address, port in sorted(found):
        piece, pod = found[address, port]
        if pod is None:
            backends.append(Backend(Endpoint(address, port, False), None, piece.node, piece.zone))
            continue
        if address in pod.other_ips and (pod.ip, port) in found:
            continue  # the same pod by its other address: one endpoint with both
        also = tuple(other for other in pod.other_ips if other != address and (other, port) in found)
        identity, workload, modes, reported = facts[pod]
        takes = modes is not None and modes.on(port) is not PeerTls.DISABLE
        endpoint = Endpoint(address, port, takes, identity, workload, also, reported=reported)
        backends.append(Backend(endpoint, pod, piece.node or pod.node, piece.zone))
    return tuple(backends)


def chosen(backends: Backends, port_name: str, labels: tuple[tuple[str, str], ...]) -> tuple[Endpoint, ...]:
    """The ready endpoints of a port whose pods have all `labels` (a subset's), or all of them."""
    if not labels:
        return backends.endpoints.get(port_name, ())
    return tuple(backend.endpoint for backend in with_labels(backends, port_name, labels))


def with_labels(backends: Backends, port_name: str, labels: tuple[tuple[str, str], ...]) -> tuple[Backend, ...]:
    """As `chosen`, with their pods and places."""
    found = backends.by_port.get(port_name, ())
    if not labels:
        return found
    return tuple(
        backend
        for backend in found
        if backend.pod is not None and all(backend.pod.meta.labels.get(key) == value for key, value in labels)
    )
