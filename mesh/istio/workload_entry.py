"""WorkloadEntry: one workload outside Kubernetes, such as a virtual machine, as an endpoint of a service.

Source: https://istio.io/latest/docs/reference/config/networking/workload-entry/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Map, Model, PortNumber, Text, UInt, problem
from mesh.istio.schema import Cel, Schema, at_least_one
from mesh.istio.texts import LabelSet
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]
SOCKET = "unix://"
PORT_NAME = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?\Z")
_LONGEST_PORT_NAME = 63
_NO_PORTS_FOR_SOCKETS = Cel(
    "!(has(self.address) && self.address.startsWith('unix://') && has(self.ports))", "a Unix socket has no ports"
)


class Endpoint(Model):
    """Where a workload is: what a WorkloadEntry says, and an endpoint of a ServiceEntry."""

    address: Annotated[
        Text,
        Schema(
            Cel(
                "!self.startsWith('unix://') || (self.matches('^unix://[/@].*[^/]$'))",
                "write a socket as unix:///path or unix://@name",
            ),
            maxLength=256,
        ),
    ] = ""
    """IP address, DNS name, or `unix:///path` of the workload, without a port."""
    ports: Annotated[
        Map[PortNumber],
        Schema(
            Cel(
                "self.all(name, name.size() <= 63 && name.matches('^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$'))",
                "a name is not a port's",
            ),
            maxProperties=128,
        ),
    ] = EMPTY
    """Port number of the workload by the service port's name; a service port that is not listed keeps its number."""
    labels: Annotated[LabelSet, Schema(maxProperties=256)] = EMPTY
    """Labels of the workload, which selectors and subsets look at."""
    network: Annotated[Text, Schema(maxLength=2048)] = ""
    """The network that the workload is in; workloads of one network reach each other directly."""
    locality: Annotated[Text, Schema(maxLength=2048)] = ""
    """`region/zone/subzone` of the workload."""
    weight: UInt = 0
    """Share of the traffic among the endpoints; more is more."""
    service_account: Annotated[Text, Schema(maxLength=253)] = ""
    """Service account of the workload, in the object's namespace, when it has a sidecar."""

    def rules(self) -> Rules:
        if self.address.startswith(SOCKET):
            yield from _socket(self)
        elif self.address:
            yield from check.check_host(("address",), self.address, wildcard=False, address=True)
        for name, number in self.ports.items():
            if len(name) > _LONGEST_PORT_NAME or not PORT_NAME.match(name):
                yield problem("ports", name, says=f"{name!r} is not a port's name", hint="use letters, digits, dashes")
            yield from check.check_port(("ports", name), number)
        yield from check.check_labels(("labels",), self.labels)
        if self.locality and not all(self.locality.split("/")):
            yield problem("locality", says=f"{self.locality!r} has an empty part", hint="write region/zone/subzone")


class ServiceEndpoint(Endpoint):
    """An endpoint that stands for itself."""

    cel = (at_least_one("address", "network"), _NO_PORTS_FOR_SOCKETS)

    def rules(self) -> Rules:
        if not self.address and not self.network:
            yield problem("address", says="the workload has no address", hint="set address, or the network it is in")
        yield from super().rules()


class WorkloadEntry(ServiceEndpoint):
    """The spec. One workload that is no pod."""


class EndpointTemplate(Endpoint):
    """What entries made from a WorkloadGroup have in common; the address is each entry's own."""

    cel = (_NO_PORTS_FOR_SOCKETS,)


def _socket(endpoint: Endpoint) -> Rules:
    path = endpoint.address.removeprefix(SOCKET)
    if not path.startswith(("/", "@")) or path.endswith("/") or path == "@":
        hint = "write unix:///path of the socket, or unix://@name"
        yield problem("address", says=f"{endpoint.address!r} is not a Unix socket", hint=hint)
    if endpoint.ports:
        yield problem("ports", says="a Unix socket has no ports", hint="remove ports")
