"""ServiceEntry: a service that Kubernetes does not know, such as one outside the cluster or of virtual machines.

Source: https://istio.io/latest/docs/reference/config/networking/service-entry/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import Model, PortNumber, Text, problem
from mesh.istio.rules import host_error
from mesh.istio.schema import Cel, Schema, not_together
from mesh.istio.selectors import NetworkSelector
from mesh.istio.texts import PROTOCOLS, AnyHost, ExportTo
from mesh.istio.workload_entry import ServiceEndpoint
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]
_DNS_KINDS = ("DNS", "DNS_ROUND_ROBIN")


class ServicePort(Model):
    """A port of the service."""

    number: PortNumber
    """The port that clients connect to."""
    protocol: Annotated[Text, Schema(pattern=rf"^(?i:{'|'.join(PROTOCOLS)})?$", maxLength=16)] = ""
    """HTTP, HTTPS, GRPC, HTTP2, MONGO, MYSQL, REDIS, TCP, TLS or UDP; TCP when it is not said."""
    name: Annotated[Text, Schema(minLength=1, maxLength=256)]
    """Name of the port, by which endpoints refer to it."""
    target_port: PortNumber = 0
    """The port on the endpoints when it is another one."""

    def rules(self) -> Rules:
        yield from check.check_port(("number",), self.number)
        yield from check.check_port(("targetPort",), self.target_port, optional=True)
        if not self.name:
            hint = f"name it, such as {self.protocol.lower() or 'tcp'}"
            yield problem("name", says="the port has no name", hint=hint)
        if self.protocol and self.protocol.upper() not in PROTOCOLS:
            says = f"{self.protocol!r} is not a protocol"
            yield problem("protocol", says=says, hint=f"use one of {', '.join(PROTOCOLS)}")


class Location(StrEnum):
    """MESH_EXTERNAL: no sidecars there, so no mutual TLS."""

    MESH_EXTERNAL = "MESH_EXTERNAL"
    MESH_INTERNAL = "MESH_INTERNAL"


class Resolution(StrEnum):
    """How the address of an endpoint is found."""

    NONE = "NONE"
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    DYNAMIC_DNS = "DYNAMIC_DNS"


class ServiceEntry(Model):
    """The spec."""

    cel = (
        not_together("workloadSelector", "endpoints"),
        Cel(
            "!has(self.addresses) || !has(self.resolution) || self.resolution in ['NONE', 'STATIC'] || "
            "!self.addresses.exists(each, each.contains('/'))",
            "address ranges go with resolution NONE or STATIC only",
        ),
        Cel(
            "!has(self.endpoints) || (has(self.resolution) && self.resolution != 'NONE')",
            "endpoints have no effect with resolution NONE: set STATIC or DNS",
        ),
        Cel(
            "!has(self.resolution) || self.resolution != 'DNS_ROUND_ROBIN' || !has(self.endpoints) || "
            "self.endpoints.size() <= 1",
            "DNS_ROUND_ROBIN takes one endpoint",
        ),
    )

    hosts: Annotated[
        tuple[AnyHost, ...],
        Schema(**{"minItems": 1, "maxItems": 256, "x-kubernetes-list-type": "set"}),
    ]
    """DNS names of the service; with a wildcard in front where the resolution is NONE or the mesh resolves it."""
    addresses: Annotated[tuple[Annotated[Text, Schema(maxLength=64)], ...], Schema(maxItems=256)] = ()
    """Virtual addresses of the service, or ranges of them."""
    ports: Annotated[
        tuple[ServicePort, ...],
        Schema(
            Cel("self.all(one, self.exists_one(other, one.number == other.number))", "a port number stands twice"),
            **{"maxItems": 256, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Ports of the service."""
    location: Location = Location.MESH_EXTERNAL
    """Whether the service is part of the mesh, with sidecars and identities, or outside it."""
    resolution: Resolution = Resolution.NONE
    """NONE: connect to the address that the client asked for; STATIC: to the endpoints; DNS: resolve them."""
    endpoints: Annotated[tuple[ServiceEndpoint, ...], Schema(maxItems=4096)] = ()
    """Where the service runs. Without them, the hosts themselves are resolved."""
    workload_selector: NetworkSelector | None = None
    """Pods and WorkloadEntries of the namespace that are the endpoints, instead of `endpoints`."""
    export_to: ExportTo = ()
    """Namespaces that may use the service; everybody when empty."""
    subject_alt_names: tuple[Text, ...] = ()
    """Names of which the server's certificate must hold one."""

    def rules(self) -> Rules:
        yield from _hosts(self)
        yield from _addresses(self)
        yield from _ports(self)
        yield from _endpoints(self)
        yield from check.check_export_to(self.export_to)


def _hosts(spec: ServiceEntry) -> Rules:
    if not spec.hosts:
        yield problem("hosts", says="the service has no host", hint="name at least one, such as api.example.com")
    for index, host in enumerate(spec.hosts):
        if host == "*":
            yield problem("hosts", index, says="* would be every host", hint="name the service")
        elif host[:1] == "*" and not host_error(host.removeprefix("*").removeprefix("-"), wildcard=False):
            says = f"{host!r}: only proxies understand a wildcard that stands for a part of a name"
            yield problem("hosts", index, says=says, hint="write a whole part, such as *.example.com", warning=True)
        else:
            yield from check.check_host(("hosts", index), host, wildcard=True)
        if host in spec.hosts[:index]:
            yield problem("hosts", index, says=f"{host!r} is listed twice", hint="keep one of the two")


def _addresses(spec: ServiceEntry) -> Rules:
    yield from check.check_subnets(("addresses",), spec.addresses)
    for index, address in enumerate(spec.addresses):
        if "/" in address and spec.resolution not in (Resolution.NONE, Resolution.STATIC) and _is_network(address):
            says = f"the range {address} cannot be resolved by DNS"
            yield problem("addresses", index, says=says, hint="use resolution NONE or STATIC")


def _ports(spec: ServiceEntry) -> Rules:
    if not spec.ports:
        says = "without ports nothing is routed to it"
        yield problem("ports", says=says, hint="add the ports of the service", warning=True)
    names = [port.name for port in spec.ports]
    numbers = [port.number for port in spec.ports]
    for index, port in enumerate(spec.ports):
        if port.name and port.name in names[:index]:
            yield problem("ports", index, "name", says=f"{port.name!r} names two ports", hint="give each its own name")
        if port.number in numbers[:index]:
            yield problem("ports", index, "number", says=f"port {port.number} stands twice", hint="merge the two")


def _endpoints(spec: ServiceEntry) -> Rules:
    if spec.workload_selector is not None and spec.endpoints:
        yield problem("endpoints", says="workloadSelector and endpoints exclude each other", hint="keep one of the two")
    if spec.endpoints and spec.resolution is Resolution.NONE:
        hint = "set resolution: STATIC, or DNS for endpoints with names"
        yield problem("endpoints", says="resolution NONE does not use endpoints", hint=hint)
    if spec.resolution is Resolution.STATIC and not spec.endpoints and spec.workload_selector is None:
        yield problem(
            "endpoints", says="STATIC has no endpoint to send to", hint="add endpoints or a selector", warning=True
        )
    if spec.resolution is Resolution.DNS_ROUND_ROBIN and len(spec.endpoints) > 1:
        yield problem("endpoints", says="DNS_ROUND_ROBIN takes one endpoint", hint="use resolution: DNS")
    if spec.resolution in _DNS_KINDS and not spec.endpoints:
        for index, host in enumerate(spec.hosts):
            if host.startswith("*"):
                yield problem("hosts", index, says="a wildcard cannot be resolved", hint="add endpoints, or use NONE")
    names = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        for name in endpoint.ports:
            if name not in names:
                hint = f"use one of {', '.join(sorted(names))}" if names else "add the port to the service"
                says = f"the service has no port {name!r}"
                yield problem("endpoints", index, "ports", name, says=says, hint=hint)
        if spec.resolution is Resolution.STATIC and endpoint.address:
            socket = endpoint.address.startswith("unix://")
            if not socket and not check.is_ip(endpoint.address):
                says = f"{endpoint.address!r} is no IP address, and STATIC resolves nothing"
                yield problem("endpoints", index, "address", says=says, hint="use resolution: DNS")


def _is_network(address: str) -> bool:
    try:
        ipaddress.ip_network(address, strict=False)
    except ValueError:
        return False
    return True
