"""What becomes of a request, at both ends, and which object and field decides it.

    explain(snapshot, Request(Key("default", "productpage-v1-0"), "reviews", 9080, "/reviews/1"))

Pure: from the plans of the client's and the servers' proxies. What an Envoy knows beyond its plan is not in it:
endpoints that it has left out because they failed, limits that are reached, answers that come late.
"""

from __future__ import annotations

from dataclasses import replace

from discovery.explain.forward import PASSTHROUGH, Scene, direct, forwarded
from discovery.explain.interception import bypassed_outbound
from discovery.explain.matching import without_port
from discovery.explain.model import UNSEEN, Branch, Explanation, Outcome, Part, Request, Result, Step, refused
from discovery.explain.names import dialled
from discovery.explain.objects import settings_origin
from discovery.explain.routing import Routed, routed
from discovery.plan.index import index
from discovery.plan.memo import Scopes
from discovery.plan.model import GatewayListener, GatewayServer, OutboundListener, Plan, Role, RouteTable, Target
from discovery.plan.origins import Origin
from discovery.plan.outbound import WILDCARD
from discovery.plan.plan import plan, proxy_of
from discovery.plan.workloads import container_ports, is_gateway
from discovery.secrets import secrets_of
from mesh.errors import NotFound
from mesh.objects import Key, Pod
from mesh.snapshot import Snapshot


def explain(snapshot: Snapshot, request: Request, scopes: Scopes | None = None) -> Explanation:
    """NotFound when the client is no pod of the snapshot. `scopes`: as in `discovery.plan.plan`."""
    scopes = Scopes() if scopes is None else scopes
    pod = snapshot.pods.get(request.client)
    if pod is None:
        raise NotFound(f"there is no pod {request.client}")
    found = index(snapshot, scopes)
    has_proxy = pod.has_sidecar or is_gateway(pod)
    made = plan(snapshot, proxy_of(snapshot, request.client), scopes) if has_proxy else None
    aim = dialled(snapshot, found, request.host, request.port, pod.meta.namespace)
    scene = Scene(snapshot, scopes, found, request, pod, aim, made)
    if made is not None and made.proxy.role is Role.GATEWAY:
        return _through_gateway(scene, made)
    return _from_app(scene, made)


# ---- from an app


def _from_app(scene: Scene, made: Plan | None) -> Explanation:
    request, aim = scene.request, scene.dialled
    role = Role.SIDECAR if made is not None else None
    if aim.missing:
        branches = refused(f"{aim.missing}: the name is not resolved", aim.hint)
        return Explanation(request, role, False, (), branches)
    steps = (Step(Part.NAME, "", _name_says(scene), (aim.entry.origin,) if aim.entry else ()),)
    if made is None:
        at = Origin("Pod", *scene.client.meta.key)
        why = Step(
            Part.LISTENER, "", f"{scene.client.meta.key} has no sidecar: the connection goes out as it is", (at,)
        )
        return Explanation(request, None, False, steps, direct(scene, why))
    bypassed = bypassed_outbound(scene.client, aim.address, request.port)
    if bypassed:
        why = Step(Part.LISTENER, "", f"{bypassed[0]}: the sidecar does not see it", (bypassed[1],))
        return Explanation(request, role, False, steps, direct(scene, why))
    listener = _listener(made, aim.address, request.port)
    if listener is None:
        step, branches = _catch_all(scene, made)
        return Explanation(request, role, False, (*steps, step), branches)
    step = Step(Part.LISTENER, listener.name, _listener_says(listener), listener.origins)
    if not (listener.protocol.is_http and listener.route_table):
        branches = _split(scene, listener.targets, listener.origins)
        return Explanation(request, role, False, (*steps, step), branches)
    if request.tls:
        reason = f"port {request.port} is HTTP in the mesh, and the app speaks TLS there"
        ends = refused(reason, "name the service's port https or tls, or let the app speak plain HTTP")
        return Explanation(request, role, True, (*steps, step), ends)
    found = routed(scene, _table(made, listener.route_table), gateway=None, scheme="http")
    return _told(scene, role, (*steps, step), found)


def _told(scene: Scene, role: Role | None, steps: tuple[Step, ...], found: Routed) -> Explanation:
    return Explanation(
        scene.request, role, True, (*steps, *found.steps), found.branches, found.passed_over, found.notes
    )


def _name_says(scene: Scene) -> str:
    aim = scene.dialled
    if aim.entry is not None and aim.pod is None:
        kind = "a headless service" if aim.entry.service.headless else f"a service at {aim.address}"
        return f"{scene.request.host} is {aim.name}, {kind}"
    if aim.pod is not None:
        return f"{scene.request.host} is the address of pod {aim.pod.meta.key}"
    if aim.name != scene.request.host.lower().rstrip("."):
        return f"{scene.request.host} is another name of {aim.name}, which the mesh does not know"
    return f"{scene.request.host} is nothing that the mesh knows"


def _listener(made: Plan, address: str, port: int) -> OutboundListener | None:
    """A listener of the very address goes before that of every address."""
    at_port = [each for each in made.outbound if each.port == port]
    exact = next((each for each in at_port if address and each.address == address), None)
    return exact or next((each for each in at_port if each.address == WILDCARD), None)


def _listener_says(listener: OutboundListener) -> str:
    if listener.protocol.is_http:
        return f"port {listener.port} is {listener.protocol.value}: told apart by host, whatever the address"
    return f"port {listener.port} at {listener.address} is {listener.protocol.value}"


def _catch_all(scene: Scene, made: Plan) -> tuple[Step, tuple[Branch, ...]]:
    aim, port = scene.dialled, scene.request.port
    where = f"{aim.address or aim.name}:{port}"
    if made.allow_any:
        step = Step(Part.LISTENER, "virtualOutbound", f"the mesh knows no {where}: passed on (ALLOW_ANY)")
        return step, forwarded(scene, PASSTHROUGH, http=False, origin=None, within="")
    mode = settings_origin(scene.snapshot, "outboundTrafficPolicy.mode")
    step = Step(Part.LISTENER, "virtualOutbound", f"the mesh knows no {where}", (mode,))
    reason = f"the mesh knows no {where}, and what it does not know is refused (REGISTRY_ONLY)"
    hint = "correct the port, or make the place known: by a service, or by outboundTrafficPolicy.mode ALLOW_ANY"
    if aim.entry is not None and aim.entry.port(port) is None:
        ports = ", ".join(str(each.number) for each in aim.entry.ports) or "none"
        reason, hint = f"service {aim.entry.host} has no port {port}, and REGISTRY_ONLY holds", f"its ports: {ports}"
    return step, refused(reason, hint, (mode,))


def _split(scene: Scene, targets: tuple[Target, ...], origins: tuple[Origin, ...]) -> tuple[Branch, ...]:
    """By weight, connection by connection."""
    total = sum(target.weight for target in targets)
    routes = next((origin for origin in reversed(origins) if origin.kind == "VirtualService"), None)
    branches: list[Branch] = []
    for target in targets:
        within = f"{routes.field}.route" if routes else ""
        found = forwarded(scene, target.destination, http=False, origin=routes, within=within)
        branches += [replace(each, share=each.share * target.weight / total) for each in found]
    return tuple(branches)


def _table(made: Plan, name: str) -> RouteTable:
    return next((each for each in made.route_tables if each.name == name), RouteTable(name, ()))


# ---- through a gateway


def _through_gateway(scene: Scene, made: Plan) -> Explanation:
    request = scene.request
    port = _target_port(scene, scene.client, request.port)
    listener = next((each for each in made.gateways if each.port == port), None)
    if listener is None:
        opened = ", ".join(str(each.port) for each in made.gateways) or "none"
        reason = f"nothing is opened on port {request.port} of {request.client}"
        if port != request.port:
            reason += f", which is {port} in its pod"
        hint = f"ports that it listens on: {opened}; a Gateway that selects it opens more"
        return Explanation(request, Role.GATEWAY, False, (), refused(reason, hint))
    server, tls = _server(listener, request)
    name = without_port(request.named)
    if server is None:
        reason = f"no server of port {port} has a certificate for {name}: the handshake fails"
        known = sorted({sni for each in listener.servers for sni in each.sni})
        hint = f"names that it serves: {', '.join(known)}" if known else "the port is not TLS"
        origins = tuple(origin for each in listener.servers for origin in each.origins)
        return Explanation(request, Role.GATEWAY, False, (), refused(reason, hint, origins))
    step = Step(Part.LISTENER, listener.name, _server_says(server, request.port, port), server.origins)
    if (ends := _unserved(scene, made, listener, server)) is not None:
        return Explanation(request, Role.GATEWAY, False, (step,), (ends,))
    if not (server.protocol.is_http and server.route_table):
        return Explanation(request, Role.GATEWAY, False, (step,), _split(scene, server.targets, server.origins))
    # TLS has ended here: what goes on is plain until the mesh's own is put round it.
    inside = replace(scene, request=replace(request, tls=False, authority=request.named))
    found = routed(inside, _table(made, server.route_table), gateway=server, scheme="https" if tls else "http")
    return _told(scene, Role.GATEWAY, (step,), found)


def _target_port(scene: Scene, pod: Pod, number: int) -> int:
    """Where the pod listens for a port of its Service."""
    for entry in scene.index.services.of_pod(pod):
        port = entry.port(number)
        if port is not None:
            declared = dict(container_ports(pod))
            return declared.get(port.target, number) if isinstance(port.target, str) else port.target
    return number


def _server(listener: GatewayListener, request: Request) -> tuple[GatewayServer | None, bool]:
    """The server for the request's name, and whether it speaks TLS. What is said of the port goes before `tls`."""
    tls = request.tls or all(each.tls is not None for each in listener.servers)
    if not tls:
        return next((each for each in listener.servers if each.tls is None), None), False
    name = without_port(request.named)
    candidates = [each for each in listener.servers if each.tls is not None]
    exact = next((each for each in candidates if name in each.sni), None)
    wild = [(sni, each) for each in candidates for sni in each.sni if sni.startswith("*") and name.endswith(sni[1:])]
    widest = next((each for each in candidates if not each.sni), None)
    longest = max(wild, key=lambda pair: len(pair[0]))[1] if wild else None
    return exact or longest or widest, True


def _server_says(server: GatewayServer, asked: int, port: int) -> str:
    at = f"port {port}" if asked == port else f"port {asked}, {port} in the pod,"
    if server.tls is None:
        return f"{at} is {server.protocol.value}"
    if server.tls.passthrough:
        return f"{at} passes TLS on by its server name"
    demand = ", and asks for a client certificate" if server.tls.client_certificates or server.tls.mesh else ""
    return f"{at} ends TLS{demand}"


def _unserved(scene: Scene, made: Plan, listener: GatewayListener, server: GatewayServer) -> Branch | None:
    """Refused, where there is no certificate to show."""
    tls = server.tls
    if tls is None or tls.passthrough or not tls.credential:
        return None
    secret = scene.snapshot.secrets.get(Key(made.proxy.namespace, tls.credential))
    if secret is not None and secret.type == UNSEEN:
        return None
    alone = replace(made, gateways=(replace(listener, servers=(server,)),))
    _, findings = secrets_of(alone, scene.snapshot.secrets)
    if not findings:
        return None
    origins = tuple(replace(each, field=f"{each.field}.tls.credentialName") for each in server.origins[:1])
    reason, hint = f"{findings[0].message}: the handshake fails", findings[0].hint
    return Branch(1.0, Outcome(Result.REFUSED, 0, reason, hint, origins))
