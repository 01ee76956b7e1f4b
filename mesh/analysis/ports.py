"""Ports: of a destination, and what a port's name says that is spoken on it."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.references import destinations
from mesh.analysis.view import View
from mesh.istio.base import IstioObject
from mesh.istio.virtual_service import MESH_GATEWAY, VirtualService
from mesh.objects import Service
from mesh.port_protocol import NAMES, Spoken, spoken_on

NO_PORT = Code(
    "HDL0301",
    "no-such-port",
    Severity.ERROR,
    "A rule sends to a port that the Service does not have: requests fail with 503.",
    "Use one of the Service's ports (not those of its pods).",
    ("IST0101",),
)
WHICH_PORT = Code(
    "HDL0302",
    "destination-port-open",
    Severity.WARNING,
    "A rule sends to a Service with several ports and names none; that at which the request came in is not among them.",
    "Set `destination.port.number`.",
    ("IST0112",),
)
HIDDEN_PROTOCOL = Code(
    "HDL0303",
    "port-hides-its-protocol",
    Severity.WARNING,
    "Neither `appProtocol` nor the name of a Service's port says what is spoken: it is taken as TCP, without routes, "
    "retries, HTTP policies and HTTP metrics.",
    "Name it `http-...`, `grpc-...`, `tcp-...`, or set `appProtocol`.",
    ("IST0118",),
)
HTTP_RULES_UNUSED = Code(
    "HDL0304",
    "http-rules-on-other-ports",
    Severity.WARNING,
    "A VirtualService has HTTP rules for a Service of which no port is HTTP by name or `appProtocol`: they are idle.",
    "Name the port `http-...`, or set its `appProtocol`.",
)
CODES = (NO_PORT, WHICH_PORT, HIDDEN_PROTOCOL, HTTP_RULES_UNUSED)

_HTTP = (Spoken.HTTP, Spoken.HTTP2)


def destination_ports_exist(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    came_in = _listeners(view, thing)
    for path, destination in destinations(thing.spec):
        service = view.service_hosts.get(view.full(destination.host, thing.namespace))
        if service is None:
            continue
        ports = _tcp_ports(service)
        number = destination.port.number if destination.port else 0
        has = f"Service {service.meta.key} has the ports {', '.join(map(str, sorted(ports)))}"
        if number and number not in ports:
            says = f"{has}, and not {number}: requests routed there fail"
            yield NO_PORT.on(thing, *path, "port", "number", says=says, hint="use one of them", value=number)
        elif not number and len(ports) > 1 and not (came_in and came_in <= ports):
            yield WHICH_PORT.on(thing, *path, says=f"{has}, and the rule names none", hint="set port.number")


def _listeners(view: View, thing: IstioObject[VirtualService]) -> frozenset[int]:
    """The ports at which requests for the hosts come in, as far as they are known."""
    found: set[int] = set()
    if thing.spec.applies_to_mesh:
        for host in thing.spec.hosts:
            service = view.service_hosts.get(view.full(host, thing.namespace))
            found |= _tcp_ports(service) if service is not None else set()
    for name in thing.spec.gateways:
        gateway = view.gateway(name, thing.namespace)[1] if name != MESH_GATEWAY else None
        found |= {server.port.number for server in gateway.spec.servers} if gateway is not None else set()
    return frozenset(found)


def _tcp_ports(service: Service) -> set[int]:
    return {port.port for port in service.ports if port.protocol in ("", "TCP")}


def ports_say_their_protocol(view: View, thing: Service) -> Iterator[Finding]:
    """Only where somebody has sidecars: what a port of any other Service is called is nobody's business."""
    if not view.in_mesh(thing.meta.namespace) or thing.external_name:
        return
    for index, port in enumerate(thing.ports):
        if port.protocol in ("", "TCP") and spoken_on(port.name, port.app_protocol) is None:
            said = f"its name {port.name!r}" if port.name else "its name, which is empty,"
            says = f"neither appProtocol nor {said} says what is spoken on port {port.port}: it is taken as TCP"
            hint = f"begin the name with one of {', '.join(NAMES)}, or set appProtocol"
            yield HIDDEN_PROTOCOL.on(thing, "spec", "ports", index, "name", says=says, hint=hint, value=port.name)


def http_rules_meet_http(view: View, thing: IstioObject[VirtualService]) -> Iterator[Finding]:
    if not thing.spec.http or not thing.spec.applies_to_mesh:
        return
    for index, host in enumerate(thing.spec.hosts):
        service = view.service_hosts.get(view.full(host, thing.namespace))
        if service is None or not service.ports:
            continue
        if any(spoken_on(port.name, port.app_protocol) in _HTTP for port in service.ports):
            continue
        names = ", ".join(f"{port.port} ({port.app_protocol or port.name or 'no name'})" for port in service.ports)
        says = f"no port of Service {service.meta.key} is HTTP: {names}; the HTTP rules are not used"
        hint = "name the port http-..., or set its appProtocol"
        yield HTTP_RULES_UNUSED.on(thing, "spec", "hosts", index, says=says, hint=hint, value=host)
