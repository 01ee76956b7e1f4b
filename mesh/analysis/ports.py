"""Ports: of a destination, and what a port's name says that is spoken on it."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.references import destinations
from mesh.analysis.view import View
from mesh.istio.base import IstioObject
from mesh.istio.request_authentication import RequestAuthentication
from mesh.istio.service_entry import ServiceEntry
from mesh.istio.virtual_service import MESH_GATEWAY, VirtualService
from mesh.objects import Service, ServicePort
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
TWO_PROTOCOLS = Code(
    "HDL0305",
    "pod-port-with-two-protocols",
    Severity.WARNING,
    "Two Services lead to one port of the same pods and name different protocols: the older one counts at the pods.",
    "Give both ports the same protocol, by name or `appProtocol`.",
    ("IST0116", "IST0137"),
)
EXTERNAL_NOT_HTTP = Code(
    "HDL0306",
    "external-name-not-http",
    Severity.WARNING,
    "A port of an ExternalName Service is not HTTP: sidecars cannot tell its connections from any other's.",
    "Name the port `http-...`, if it is HTTP.",
    ("IST0150",),
)
TOKENS_UNREAD = Code(
    "HDL0307",
    "tokens-on-other-ports",
    Severity.WARNING,
    "A RequestAuthentication selects pods of which a port is not HTTP by name or `appProtocol`: tokens are not read "
    "there.",
    "Name the port `http-...`, if it is HTTP.",
    ("IST0119",),
)
NO_ADDRESS = Code(
    "HDL0308",
    "entry-without-address",
    Severity.WARNING,
    "A ServiceEntry has a port that is neither HTTP nor TLS, and no address: every connection to that port is taken "
    "for one to it.",
    "Set `spec.addresses`.",
    ("IST0134",),
)
CODES = (
    NO_PORT,
    WHICH_PORT,
    HIDDEN_PROTOCOL,
    HTTP_RULES_UNUSED,
    TWO_PROTOCOLS,
    EXTERNAL_NOT_HTTP,
    TOKENS_UNREAD,
    NO_ADDRESS,
)
_TOLD_APART = ("HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TLS")

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


def pods_ports_have_one_protocol(view: View, thing: Service) -> Iterator[Finding]:
    """Of Services that disagree the oldest one counts, as in discovery."""
    older = sorted((each for each in view.services_beside(thing) if _age(each) < _age(thing)), key=_age)
    for index, port in enumerate(thing.ports):
        same = ((each, one) for each in older for one in each.ports if _target(one) == _target(port))
        first, other = next(((each, one) for each, one in same if one.protocol in ("", "TCP")), (None, None))
        if first is None or other is None or port.protocol not in ("", "TCP") or _spoken(other) is _spoken(port):
            continue
        says = (
            f"port {port.target} of its pods is {_spoken(port).value} here, and {_spoken(other).value} in the older "
            f"Service {first.meta.key}, which counts"
        )
        hint = "give both ports the same protocol, by name or appProtocol"
        yield TWO_PROTOCOLS.on(thing, "spec", "ports", index, says=says, hint=hint)


def external_names_are_http(view: View, thing: Service) -> Iterator[Finding]:
    """There is no address by which sidecars could tell connections that are no HTTP."""
    for index, port in enumerate(thing.ports if thing.external_name else ()):
        if port.protocol in ("", "TCP") and _spoken(port) not in _HTTP:
            says = f"{thing.external_name} on port {port.port} is not HTTP: sidecars see an unknown address there"
            hint = "name the port http-..., if it is HTTP; else policies and routes do not hold for it"
            yield EXTERNAL_NOT_HTTP.on(thing, "spec", "ports", index, "name", says=says, hint=hint, value=port.name)


def tokens_come_by_http(view: View, thing: IstioObject[RequestAuthentication]) -> Iterator[Finding]:
    labels = thing.spec.selector.match_labels if thing.spec.selector is not None else {}
    if not labels:
        return
    for service in view.snapshot.services.values():
        pods = [each for each in view.workloads.get(service.meta.namespace, ()) if each.matches(labels)]
        if service.meta.namespace != thing.namespace or not service.selector:
            continue
        if not any(each.matches(service.selector) for each in pods):
            continue
        for port in service.ports:
            if port.protocol in ("", "TCP") and _spoken(port) not in _HTTP:
                says = f"port {port.port} of Service {service.meta.key} is not HTTP: tokens are not read there"
                hint = "name the port http-..., if it is HTTP"
                yield TOKENS_UNREAD.on(thing, "spec", "selector", says=says, hint=hint)


def connections_have_an_address(view: View, thing: IstioObject[ServiceEntry]) -> Iterator[Finding]:
    """By host or server name where there is one; else by address."""
    for index, port in enumerate(thing.spec.ports if not thing.spec.addresses else ()):
        if port.protocol.upper() not in _TOLD_APART:
            says = f"port {port.number} is {port.protocol or 'TCP'}, and the entry has no address"
            yield NO_ADDRESS.on(thing, "spec", "ports", index, says=says, hint="set spec.addresses")


def _target(port: ServicePort) -> int | str:
    return port.target or port.port


def _spoken(port: ServicePort) -> Spoken:
    return spoken_on(port.name, port.app_protocol) or Spoken.TCP


def _age(service: Service) -> tuple[str, str, str]:
    return service.meta.created, service.meta.name, service.meta.namespace
