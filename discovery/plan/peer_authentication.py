"""Which TLS a workload takes on a port.

Precedence: the workload policy's port, the workload policy, the namespace's, the mesh's, PERMISSIVE. UNSET inherits; of
several policies of one width the oldest counts. A policy is the workload's when it has a selector, the mesh's when it
is in the root namespace without one. Port-level modes count only with a selector, and name the workload's ports.
Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from discovery.plan.model import PeerTls
from discovery.plan.origins import Origin, Problem, origin_of, problem_with
from mesh.istio.base import IstioObject, age
from mesh.istio.peer_authentication import MutualTLSMode, PeerAuthentication

Policy = IstioObject[PeerAuthentication]


@dataclass(frozen=True, slots=True)
class PeerModes:
    """What one workload takes: `default` on every port but those in `ports`."""

    default: PeerTls
    ports: tuple[tuple[int, PeerTls], ...] = ()
    origins: tuple[Origin, ...] = ()

    def on(self, port: int) -> PeerTls:
        if not self.ports:
            return self.default
        return next((mode for number, mode in self.ports if number == port), self.default)


UNSAID = PeerModes(PeerTls.PERMISSIVE)


@dataclass(frozen=True, slots=True, eq=False)
class PeerPolicies:
    """All policies, by width. `workloads` holds those with a selector, oldest first."""

    mesh: PeerModes
    namespaces: Mapping[str, PeerModes]
    workloads: Mapping[str, tuple[Policy, ...]]
    problems: tuple[Problem, ...]

    def of_workload(self, namespace: str, labels: Mapping[str, str]) -> PeerModes:
        wide = self.namespaces.get(namespace, self.mesh)
        candidates = self.workloads.get(namespace)
        if candidates is None:
            return wide
        workload = next(
            (
                policy
                for policy in candidates
                if policy.spec.selector and policy.spec.selector.match_labels.items() <= labels.items()
            ),
            None,
        )
        return wide if workload is None else _narrowed(wide, workload)


def _narrowed(wide: PeerModes, policy: Policy) -> PeerModes:
    """What a policy makes of the next wider one."""
    ports = sorted(policy.spec.port_modes.items()) if policy.spec.selector is not None else []
    return PeerModes(
        _mode(policy) or wide.default,
        tuple((port, PeerTls(mode.value)) for port, mode in ports),
        (*wide.origins, origin_of(policy)),
    )


def _mode(policy: Policy) -> PeerTls | None:
    if policy.spec.mtls is None or policy.spec.mtls.mode is MutualTLSMode.UNSET:
        return None
    return PeerTls(policy.spec.mtls.mode.value)


def peer_policies(objects: Iterable[IstioObject[Any]], root_namespace: str) -> PeerPolicies:
    mesh: Policy | None = None
    namespaces: dict[str, Policy] = {}
    workloads: dict[str, list[Policy]] = {}
    problems: list[Problem] = []
    for policy in sorted(objects, key=age):
        if policy.spec.selector is not None and policy.spec.selector.match_labels:
            workloads.setdefault(policy.namespace, []).append(policy)
        elif policy.namespace == root_namespace:
            if mesh is None:
                mesh = policy
            else:
                problems.append(_second(policy, mesh))
        elif policy.namespace in namespaces:
            problems.append(_second(policy, namespaces[policy.namespace]))
        else:
            namespaces[policy.namespace] = policy
    everywhere = _narrowed(UNSAID, mesh) if mesh else UNSAID
    return PeerPolicies(
        mesh=everywhere,
        namespaces={namespace: _narrowed(everywhere, policy) for namespace, policy in namespaces.items()},
        workloads={namespace: tuple(found) for namespace, found in workloads.items()},
        problems=tuple(problems),
    )


def _second(policy: Policy, first: Policy) -> Problem:
    return problem_with(
        policy,
        "spec.selector",
        f"{first.namespace}/{first.name} is older and covers the same workloads: this policy has no effect",
        "keep one policy for the namespace, or select workloads by labels",
    )
