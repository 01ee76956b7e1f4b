"""What a connection meets where it arrives: the server's sidecar, which TLS it takes, and the app behind it.

The table of which transports a port takes is that of discovery/envoy/inbound.py, in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from discovery.explain.interception import bypassed_inbound
from discovery.explain.model import Outcome, Part, Result, Step, Transport
from discovery.plan.index import index
from discovery.plan.memo import Scopes
from discovery.plan.model import Endpoint, InboundPort, PeerTls, Plan, Protocol, Proxy
from discovery.plan.origins import Origin
from discovery.plan.plan import plan, proxy_of
from discovery.plan.workloads import is_gateway
from mesh.istio.peer_authentication import MutualTLSMode
from mesh.objects import Key, Pod
from mesh.snapshot import Snapshot

SERVED = Outcome(Result.SERVED)
_CLIENT_NEEDS_SIDECAR = "give the client a sidecar, or let the port take plain text (PERMISSIVE) until it has one"


@dataclass(frozen=True, slots=True)
class Arrival:
    """`status` is what the client's proxy answers when the server ends the connection: 503, or 0 without a proxy that
    speaks HTTP. `speaks`: the protocol that the service's port says. `by_address`: no service's name led here."""

    transport: Transport
    speaks: Protocol
    status: int
    by_proxy: bool
    by_address: bool = False


Met = tuple[tuple[Step, ...], Outcome]


def pod_at(snapshot: Snapshot, endpoint: Endpoint) -> Pod | None:
    """The pod behind an endpoint, None where it is no pod's."""
    namespace, _, name = endpoint.workload.partition("/")
    return snapshot.pods.get(Key(namespace, name)) if name else None


def arrived(snapshot: Snapshot, scopes: Scopes, pod: Pod | None, port: int, arrival: Arrival) -> Met:
    """What a connection to `port` of `pod` meets there (None: an address that is no pod's)."""
    if pod is None:
        return _without_proxy("it is no pod of this mesh", (), arrival)
    at = Origin("Pod", pod.meta.namespace, pod.meta.name)
    if not pod.has_sidecar:
        return _without_proxy(f"{pod.meta.key} has no sidecar", (at,), arrival)
    if is_gateway(pod):
        return _at_gateway(plan(snapshot, proxy_of(snapshot, pod.meta.key), scopes), port, arrival)
    bypassed = bypassed_inbound(pod, port)
    if bypassed:
        return _without_proxy(f"{bypassed[0]} of {pod.meta.key}", (bypassed[1],), arrival)
    made = plan(snapshot, proxy_of(snapshot, pod.meta.key), scopes)
    declared = next((each for each in made.inbound if each.port == port), None)
    mode = declared.peer_tls if declared else made.inbound_default
    policy = _policy(snapshot, scopes, made.proxy, port)
    steps = (_port_step(declared, port), Step(Part.POLICY, mode.value, _mode_says(mode, policy), policy))
    outcome = _admitted(mode, declared, arrival, policy)
    return steps, outcome


def _port_step(declared: InboundPort | None, port: int) -> Step:
    if declared is None:
        says = f"no service and no container names port {port}: it is passed on as bytes"
        return Step(Part.INBOUND, "InboundPassthroughCluster", says)
    services = tuple(origin for origin in declared.origins if origin.kind == "Service")
    says = f"port {port} of the pod is {declared.protocol.value}"
    return Step(Part.INBOUND, declared.destination, says + ("" if services else ", for no service says more"), services)


def _mode_says(mode: PeerTls, policy: tuple[Origin, ...]) -> str:
    takes = {
        PeerTls.STRICT: "only mutual TLS is let in",
        PeerTls.PERMISSIVE: "mutual TLS and plain text are let in",
        PeerTls.DISABLE: "only plain text is let in",
    }[mode]
    return takes if policy else f"{takes}: the default, for no PeerAuthentication says otherwise"


def _admitted(mode: PeerTls, declared: InboundPort | None, arrival: Arrival, policy: tuple[Origin, ...]) -> Outcome:
    transport = arrival.transport
    http = declared is not None and declared.protocol.is_http

    def ends(reason: str, hint: str) -> Outcome:
        return Outcome(Result.REFUSED, arrival.status, reason, hint, policy)

    if mode is PeerTls.STRICT and transport is Transport.PLAIN:
        if arrival.by_proxy and arrival.by_address:
            return ends(
                "the server takes mutual TLS only (STRICT), and a sidecar sends plain text to addresses that it does "
                "not know as a service's",
                "dial the name of its service, and a port that the service has",
            )
        if arrival.by_proxy:
            return ends(
                "the server takes mutual TLS only (STRICT), and the client's sidecar is told to send plain text",
                "remove tls.mode DISABLE from the DestinationRule, or enableAutoMtls: false from the mesh's settings",
            )
        return ends("the server takes mutual TLS only (STRICT), and no sidecar sends it here", _CLIENT_NEEDS_SIDECAR)
    if mode is PeerTls.STRICT and transport is Transport.TLS:
        return ends(
            "the server takes the mesh's mutual TLS only (STRICT), and this TLS brings no certificate of the mesh",
            "use tls.mode ISTIO_MUTUAL in the DestinationRule, or none at all",
        )
    if mode is PeerTls.DISABLE and transport is Transport.MUTUAL:
        return ends(
            "the server takes plain text only (DISABLE), and the client is told to use mutual TLS",
            "remove tls.mode ISTIO_MUTUAL from the DestinationRule: who takes it gets it without",
        )
    if transport is Transport.TLS and http:
        return ends(
            "the port is HTTP in the mesh, and TLS that is not the mesh's comes there",
            "name the port tls, or use tls.mode ISTIO_MUTUAL in the DestinationRule",
        )
    return SERVED


def _without_proxy(why: str, origins: tuple[Origin, ...], arrival: Arrival) -> Met:
    step = Step(Part.INBOUND, "", f"{why}: the app gets what the client sends", origins)
    if arrival.transport is Transport.MUTUAL:
        reason = "the client is told to use mutual TLS, and no sidecar answers it"
        hint = "remove tls.mode ISTIO_MUTUAL from the DestinationRule, or give the server a sidecar"
        return (step,), Outcome(Result.REFUSED, arrival.status, reason, hint)
    if arrival.transport is Transport.TLS and arrival.speaks.is_http:
        reason = f"the client is told to use TLS, and the port is {arrival.speaks.value}: the app speaks plain text"
        hint = "remove tls from the DestinationRule, or name the port tls or https if the app does speak TLS"
        return (step,), Outcome(Result.REFUSED, arrival.status, reason, hint)
    return (step,), SERVED


def _at_gateway(made: Plan, port: int, arrival: Arrival) -> Met:
    listener = next((each for each in made.gateways if each.port == port), None)
    if listener is None:
        reason = f"gateway {made.proxy.namespace}/{made.proxy.pod} does not listen on port {port}"
        hint = "a Gateway that selects it opens ports, where a VirtualService is bound to it"
        return (), Outcome(Result.REFUSED, arrival.status, reason, hint)
    says = f"a gateway: explain from {made.proxy.namespace}/{made.proxy.pod} how it goes on"
    origins = tuple(origin for server in listener.servers for origin in server.origins)
    step = Step(Part.INBOUND, listener.name, says, origins)
    if arrival.transport is Transport.MUTUAL and not any(each.tls and each.tls.mesh for each in listener.servers):
        reason = "the client is told to use mutual TLS, and no server of the gateway is ISTIO_MUTUAL"
        return (step,), Outcome(Result.REFUSED, arrival.status, reason, "remove tls.mode from the DestinationRule")
    return (step,), SERVED


def _policy(snapshot: Snapshot, scopes: Scopes, proxy: Proxy, port: int) -> tuple[Origin, ...]:
    """The PeerAuthentication that decides for the port, with its field; none where the default holds."""
    modes = index(snapshot, scopes).peers.of_workload(proxy.namespace, dict(proxy.labels))
    objects = snapshot.of("PeerAuthentication")
    for origin in reversed(modes.origins):
        spec = objects[Key(origin.namespace, origin.name)].spec
        if spec.selector is not None and port in spec.port_modes:
            field = f"spec.portLevelMtls[{port}].mode"
        elif spec.mtls is not None and spec.mtls.mode is not MutualTLSMode.UNSET:
            field = "spec.mtls.mode"
        else:
            continue
        return (Origin(origin.kind, origin.namespace, origin.name, field),)
    return ()
