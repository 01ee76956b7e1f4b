"""From a destination that a route names to those who answer for it: endpoints, TLS towards each, and what they do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from discovery.explain.model import Branch, Outcome, Part, Request, Result, Step, Transport
from discovery.explain.names import Dialled, endpoints_of
from discovery.explain.objects import subset_origin, tls_origin
from discovery.explain.server import Arrival, arrived, pod_at
from discovery.plan.index import Index
from discovery.plan.memo import Scopes
from discovery.plan.model import Balance, Destination, Endpoint, Plan, Protocol, Resolution, TlsMode
from discovery.plan.origins import Origin, Problem
from discovery.plan.rules import DEFAULT_LIMITS
from mesh.objects import Pod
from mesh.snapshot import Snapshot

PASSTHROUGH = "PassthroughCluster"


@dataclass(frozen=True, slots=True)
class Scene:
    """Whatever the decisions about one request look at. `plan` None: the client has no proxy."""

    snapshot: Snapshot
    scopes: Scopes
    index: Index
    request: Request
    client: Pod
    dialled: Dialled
    plan: Plan | None

    def problem(self, origin: Origin | None, within: str = "") -> Problem | None:
        """What the plan has to say about an object; about a field or one below it, where `within` names it."""
        if self.plan is None or origin is None:
            return None
        about = (origin.kind, origin.namespace, origin.name)
        return next(
            (
                each
                for each in self.plan.problems
                if (each.origin.kind, each.origin.namespace, each.origin.name) == about
                and each.origin.field.startswith(within)
            ),
            None,
        )


def forwarded(scene: Scene, name: str, *, http: bool, origin: Origin | None, within: str) -> tuple[Branch, ...]:
    """What becomes of requests to destination `name`, which the field `within` of `origin` names."""
    assert scene.plan is not None
    status = 503 if http else 0
    destination = next((each for each in scene.plan.destinations if each.name == name), None)
    if destination is None or destination.resolution is Resolution.NOWHERE:
        problem = scene.problem(origin, within)
        reason = problem.message if problem else f"there is no destination {name}"
        found = (problem.origin,) if problem else ()
        hint = problem.hint if problem else ""
        return (Branch(1.0, Outcome(Result.REFUSED, status, reason, hint, found), destination=name),)
    steps = [_destination_step(destination)]
    if destination.resolution is Resolution.DNS:
        return (_external(scene, destination, steps),)
    if _keeps_address(destination):
        return _to_dialled(scene, destination, steps, status)
    sets = {each.name: each.endpoints for each in scene.plan.endpoints}
    endpoints = sets.get(name, ())
    if not endpoints:
        return (_nobody(scene, destination, sets, steps, status),)
    first = min(each.priority for each in endpoints)
    asked = tuple(each for each in endpoints if each.priority == first)
    steps.append(_endpoints_step(scene, destination, asked, len(endpoints) - len(asked)))
    return _groups(scene, destination, asked, steps, http)


def direct(scene: Scene, why: Step) -> tuple[Branch, ...]:
    """What becomes of a connection that no proxy of the client's touches: it goes to the address that was dialled."""
    transport = Transport.TLS if scene.request.tls else Transport.PLAIN
    return _to_address(scene, (why,), transport, status=0, by_proxy=False)


def subset_of(name: str) -> str:
    """`v1` of `outbound|9080|v1|reviews.default.svc.cluster.local`."""
    parts = name.split("|")
    return parts[2] if len(parts) == 4 else ""


def _destination_step(destination: Destination) -> Step:
    says = [f"balanced by {destination.balance.value}" if not _keeps_address(destination) else "to the address dialled"]
    if destination.hash_by is not None:
        by = destination.hash_by
        says[0] = f"balanced by hash of {by.header or by.cookie or by.query_parameter or 'the source address'}"
    if destination.host and destination.limits != DEFAULT_LIMITS:
        says.append("with limits of connections and requests: what is above them gets 503")
    if destination.outliers is not None:
        says.append("endpoints that fail are left out for a while")
    return Step(Part.DESTINATION, destination.name, ", ".join(says), destination.origins)


def _keeps_address(destination: Destination) -> bool:
    by_address = destination.resolution is Resolution.ORIGINAL
    return by_address or (destination.resolution is Resolution.ENDPOINTS and destination.balance is Balance.PASSTHROUGH)


def _endpoints_step(scene: Scene, destination: Destination, asked: tuple[Endpoint, ...], others: int) -> Step:
    says = f"{len(asked)} ready"
    subset = subset_of(destination.name)
    origins = subset_origin(scene.snapshot, destination, subset) if subset else ()
    if subset:
        says += f" in subset {subset}"
    if others:
        says += f", the nearest; {others} farther ones when none of them answers"
    return Step(Part.ENDPOINTS, destination.name, says, origins)


def _nobody(
    scene: Scene,
    destination: Destination,
    sets: dict[str, tuple[Endpoint, ...]],
    steps: Iterable[Step],
    status: int,
) -> Branch:
    subset = subset_of(destination.name)
    service = next((each for each in destination.origins if each.kind == "Service"), None)
    whole = sets.get(destination.name.replace(f"|{subset}|", "||", 1), ()) if subset else ()
    problem = scene.problem(service)
    if whole:
        origins = subset_origin(scene.snapshot, destination, subset)
        reason = f"subset {subset} has no ready endpoint, and the service has {len(whole)}"
        hint = "correct the labels of the subset, or those of the pods that it means"
    elif problem is not None:
        origins, reason, hint = (problem.origin,), problem.message, problem.hint
    else:
        origins = (service,) if service else ()
        reason, hint = "it has no ready endpoint for this port", "look at its pods, and at the target port's name"
    outcome = Outcome(Result.REFUSED, status, reason, hint, origins)
    return Branch(1.0, outcome, tuple(steps), destination.name, subset)


def _external(scene: Scene, destination: Destination, steps: list[Step]) -> Branch:
    step, transport = _tls(scene, destination, None)
    return Branch(
        share=1.0,
        outcome=Outcome(Result.SERVED),
        steps=(*steps, step),
        destination=destination.name,
        workloads=(f"{destination.address}:{destination.port}",),
        transport=transport,
    )


def _to_dialled(scene: Scene, destination: Destination, steps: list[Step], status: int) -> tuple[Branch, ...]:
    step, transport = _tls(scene, destination, None)
    by_address = not destination.host
    branches = _to_address(scene, (*steps, step), transport, status=status, by_proxy=True, by_address=by_address)
    return tuple(replace(each, destination=destination.name, subset=subset_of(destination.name)) for each in branches)


def _to_address(
    scene: Scene,
    steps: tuple[Step, ...],
    transport: Transport,
    *,
    status: int,
    by_proxy: bool,
    by_address: bool = False,
) -> tuple[Branch, ...]:
    """Connections to the address that was dialled: a service's (kube-proxy chooses a pod), a pod's, or another."""
    dialled, port = scene.dialled, scene.request.port
    entry = dialled.entry
    if entry is not None and dialled.pod is None:
        service_port = entry.port(port)
        if service_port is None and not entry.service.headless:
            ports = ", ".join(str(each.number) for each in entry.ports) or "none"
            outcome = Outcome(
                Result.REFUSED,
                status,
                f"service {entry.host} has no port {port}",
                f"its ports: {ports}",
                (Origin("Service", entry.namespace, entry.key.name, "spec.ports"),),
            )
            return (Branch(1.0, outcome, steps),)
        endpoints = endpoints_of(scene.index, entry, service_port)
        if entry.service.headless:  # its pods are dialled themselves, so at the port that was dialled
            endpoints = tuple(dict.fromkeys(replace(each, port=port) for each in endpoints))
        speaks = service_port.protocol if service_port else Protocol.TCP
        if not endpoints:
            reason = f"service {entry.host} has no ready endpoint on port {port}"
            outcome = Outcome(Result.REFUSED, status, reason, "look at its pods", (entry.origin,))
            return (Branch(1.0, outcome, steps),)
    elif dialled.pod is not None:
        pod = dialled.pod
        endpoints = (Endpoint(pod.ip, port, False, workload=str(pod.meta.key)),)
        speaks = Protocol.TCP
    else:
        where = dialled.address or dialled.name
        return (Branch(1.0, Outcome(Result.SERVED), steps, workloads=(f"{where}:{port}",), transport=transport),)
    arrival = Arrival(transport, speaks, status, by_proxy, by_address)
    found = [(endpoint, pod_at(scene.snapshot, endpoint)) for endpoint in endpoints]
    met = [
        (endpoint, transport, arrived(scene.snapshot, scene.scopes, pod, endpoint.port, arrival))
        for endpoint, pod in found
    ]
    return tuple(
        Branch(len(some) / len(endpoints), outcome, (*steps, *more), workloads=_workloads(some), transport=transport)
        for (_, more, outcome), some in _grouped(met)
    )


def _groups(
    scene: Scene, destination: Destination, endpoints: tuple[Endpoint, ...], steps: list[Step], http: bool
) -> tuple[Branch, ...]:
    met = []
    tls_steps: dict[Transport, Step] = {}
    for endpoint in endpoints:
        step, transport = _tls(scene, destination, endpoint)
        tls_steps[transport] = step
        arrival = Arrival(transport, destination.protocol, 503 if http else 0, by_proxy=True)
        more, outcome = arrived(scene.snapshot, scene.scopes, pod_at(scene.snapshot, endpoint), endpoint.port, arrival)
        if outcome.result is Result.SERVED:
            outcome = _identified(scene, destination, endpoint, transport, outcome, 503 if http else 0)
        met.append((endpoint, transport, (more, outcome)))
    return tuple(
        Branch(
            share=len(some) / len(endpoints),
            outcome=outcome,
            steps=(*steps, tls_steps[transport], *more),
            destination=destination.name,
            subset=subset_of(destination.name),
            workloads=_workloads(some),
            transport=transport,
        )
        for (transport, more, outcome), some in _grouped(met)
    )


Group = tuple[Transport, tuple[Step, ...], Outcome]


def _grouped(
    met: Iterable[tuple[Endpoint, Transport, tuple[tuple[Step, ...], Outcome]]],
) -> list[tuple[Group, list[Endpoint]]]:
    """Endpoints that are the same to a request, as one. Names of pods in their steps do not make them differ."""
    groups: dict[object, tuple[Group, list[Endpoint]]] = {}
    for endpoint, transport, (steps, outcome) in met:
        like = tuple((step.part, step.says.replace(endpoint.workload, ""), _without_pods(step)) for step in steps)
        _, some = groups.setdefault((transport, like, outcome), ((transport, steps, outcome), []))
        some.append(endpoint)
    return list(groups.values())


def _without_pods(step: Step) -> tuple[Origin, ...]:
    return tuple(origin for origin in step.origins if origin.kind != "Pod")


def _workloads(endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    return tuple(each.workload or f"{each.address}:{each.port}" for each in endpoints)


def _tls(scene: Scene, destination: Destination, endpoint: Endpoint | None) -> tuple[Step, Transport]:
    """What the client's proxy does with connections to an endpoint; None: whatever the address."""
    settings = destination.tls
    decides = tls_origin(scene.snapshot, destination)
    own = Transport.TLS if scene.request.tls else Transport.PLAIN
    if settings is None or settings.mode is TlsMode.DISABLE:
        if decides:
            return Step(Part.TLS, TlsMode.DISABLE.value, "the proxy adds no TLS, as the rule says", decides), own
        automatic = scene.snapshot.settings.enable_auto_mtls
        why = "" if automatic or not destination.host else ": enableAutoMtls is false"
        return Step(Part.TLS, "", f"the proxy adds no TLS{why}"), own
    if settings.mode is not TlsMode.ISTIO_MUTUAL:
        return Step(Part.TLS, settings.mode.value, "TLS by the rule, not the mesh's", decides), Transport.TLS
    if settings.automatic and endpoint is not None and not endpoint.mesh_tls:
        return Step(Part.TLS, "automatic", "no mutual TLS, since nobody takes it there"), own
    if settings.automatic or not decides:
        return Step(Part.TLS, "automatic", "mutual TLS, since the server takes it"), Transport.MUTUAL
    return Step(Part.TLS, settings.mode.value, "mutual TLS, as the rule says", decides), Transport.MUTUAL


def _identified(
    scene: Scene, destination: Destination, endpoint: Endpoint, transport: Transport, outcome: Outcome, status: int
) -> Outcome:
    """Refused, where the server is another than the client expects."""
    expected = destination.tls.server_identities if destination.tls else ()
    if transport is not Transport.MUTUAL or not expected or not endpoint.identity or endpoint.identity in expected:
        return outcome
    reason = f"the server is {endpoint.identity}, and the rule expects {' or '.join(expected)}"
    hint = "correct tls.subjectAltNames in the DestinationRule, or leave it out"
    return Outcome(Result.REFUSED, status, reason, hint, tls_origin(scene.snapshot, destination))
