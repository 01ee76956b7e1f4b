"""Gateways: two for one host, certificates, and ports that nobody can reach."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.view import View, Workload
from mesh.istio.base import IstioObject, age
from mesh.istio.gateway import Gateway, Server
from mesh.objects import Key

NO_SECRET = Code(
    "HDL0107",
    "no-such-secret",
    Severity.ERROR,
    "The `credentialName` of a Gateway names a Secret that is not in the namespace of the gateway's pods: handshakes "
    "fail.",
    "Create it with `kubectl create secret tls`, in the namespace of the gateway's pods.",
    ("IST0161",),
)
NOT_ON_SERVICE = Code(
    "HDL0108",
    "gateway-port-not-on-service",
    Severity.WARNING,
    "No Service of the gateway's pods has the port of a Gateway's server: clients of the Service cannot reach it.",
    "Add the port to the Service, or correct the server's.",
    ("IST0162",),
)
RIVALS = Code(
    "HDL0204",
    "host-at-two-gateways",
    Severity.WARNING,
    "Two Gateways for the same pods serve one host on one port: routes of both are mixed, or one server is left out.",
    "Serve the host in one Gateway; VirtualServices of other namespaces may be bound to it.",
    ("IST0145",),
)
SAME_CERTIFICATE = Code(
    "HDL0205",
    "certificate-at-two-gateways",
    Severity.WARNING,
    "Two servers of the same pods show one certificate for different hosts: browsers send requests for one over the "
    "connection of the other, and get 404.",
    "Serve these hosts in one server, or give each its own certificate.",
    ("IST0138",),
)
REFERENCES = (NO_SECRET, NOT_ON_SERVICE)
ROUTES = (RIVALS, SAME_CERTIFICATE)


def credentials_are_there(view: View, thing: IstioObject[Gateway]) -> Iterator[Finding]:
    namespaces = {each.namespace for each in pods_of(view, thing.spec)}
    for at, server in enumerate(thing.spec.servers):
        name = server.tls.credential_name if server.tls is not None else ""
        missing = sorted(home for home in namespaces if Key(home, name) not in view.snapshot.secrets) if name else []
        if missing and view.complete:
            says = f"there is no Secret {name} in namespace {' and '.join(missing)}: handshakes fail"
            hint = f"kubectl -n {missing[0]} create secret tls {name} --cert=... --key=..."
            yield NO_SECRET.on(thing, "spec", "servers", at, "tls", "credentialName", says=says, hint=hint, value=name)


def ports_are_on_the_service(view: View, thing: IstioObject[Gateway]) -> Iterator[Finding]:
    pods = list(pods_of(view, thing.spec))
    services = [
        each
        for each in view.snapshot.services.values()
        if each.selector and any(pod.namespace == each.meta.namespace and pod.matches(each.selector) for pod in pods)
    ]
    known = {port.port for each in services for port in each.ports}
    known |= {port.target for each in services for port in each.ports if isinstance(port.target, int)}
    for at, server in enumerate(thing.spec.servers):
        number = server.port.number
        if services and number not in known:
            names = " and ".join(sorted(f"Service {each.meta.key}" for each in services))
            says = f"{names} has no port {number}: it is reached in the pods only"
            hint = "add the port to the Service, or correct this one"
            yield NOT_ON_SERVICE.on(thing, "spec", "servers", at, "port", "number", says=says, hint=hint, value=number)


def hosts_are_at_one_gateway(view: View, thing: IstioObject[Gateway]) -> Iterator[Finding]:
    for other in _older_at_the_samepods_of(view, thing):
        for at, server in enumerate(thing.spec.servers):
            for each in other.spec.servers:
                shared = sorted({*server.hosts} & {*each.hosts}) if each.port.number == server.port.number else []
                if shared:
                    says = f"{other} is older and serves {', '.join(shared)} on port {server.port.number} too"
                    hint = "serve the host in one of the two"
                    yield RIVALS.on(thing, "spec", "servers", at, "hosts", says=says, hint=hint)


def certificates_are_of_one_server(view: View, thing: IstioObject[Gateway]) -> Iterator[Finding]:
    for other in _older_at_the_samepods_of(view, thing):
        theirs = {name: each for each in other.spec.servers if (name := _credential(each))}
        for at, server in enumerate(thing.spec.servers):
            found = theirs.get(_credential(server))
            if found is not None and set(found.hosts) != set(server.hosts):
                says = f"{other} shows the certificate {_credential(server)} for other hosts"
                hint = "serve these hosts in one server, or give each its own certificate"
                path = ("spec", "servers", at, "tls", "credentialName")
                yield SAME_CERTIFICATE.on(thing, *path, says=says, hint=hint)


def pods_of(view: View, spec: Gateway) -> Iterator[Workload]:
    """The pods that a Gateway selects, of all namespaces."""
    for those in view.workloads.values():
        yield from (each for each in those if each.matches(spec.selector))


def _older_at_the_samepods_of(view: View, thing: IstioObject[Gateway]) -> Iterator[IstioObject[Gateway]]:
    everything = sorted(view.snapshot.of("Gateway").values(), key=age)
    for each in everything:
        if age(each) >= age(thing):
            continue
        same = each.spec.selector == thing.spec.selector
        if same or any(pod.matches(each.spec.selector) for pod in pods_of(view, thing.spec)):
            yield each


def _credential(server: Server) -> str:
    return server.tls.credential_name if server.tls is not None else ""
