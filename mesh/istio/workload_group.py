"""WorkloadGroup: what the WorkloadEntries of a group of virtual machines have in common, as a Deployment has of pods.

Source: https://istio.io/latest/docs/reference/config/networking/workload-group/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Labels, Model, PortNumber, Text, problem
from mesh.istio.schema import Schema, exactly_one
from mesh.istio.texts import Count, HeaderName, LabelSet
from mesh.istio.workload_entry import EndpointTemplate
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]


class GroupMetadata(Model):
    """Metadata of the entries."""

    labels: Annotated[LabelSet, Schema(maxProperties=256)] = EMPTY
    """Labels of each entry."""
    annotations: Annotated[Labels, Schema(maxProperties=256)] = EMPTY
    """Annotations of each entry."""

    def rules(self) -> Rules:
        yield from check.check_labels(("labels",), self.labels)


class HTTPHeader(Model):
    required = ("name",)

    name: HeaderName = ""
    """Name of the header."""
    value: Text = ""
    """Its value."""

    def rules(self) -> Rules:
        yield from check.check_header_name(("name",), self.name)


class HTTPProbe(Model):
    """Healthy when a GET is answered by 200 to 399."""

    path: Text = ""
    """Path to ask for; `/` when it is empty."""
    port: PortNumber
    """Port of the workload."""
    host: Text = ""
    """Host to connect to; the workload's own address when it is empty."""
    scheme: Annotated[Text, Schema(enum=["", "HTTP", "HTTPS"])] = ""
    """HTTP (the default) or HTTPS."""
    http_headers: tuple[HTTPHeader, ...] = ()
    """Headers to send."""

    def rules(self) -> Rules:
        yield from check.check_port(("port",), self.port)
        if self.scheme not in ("", "HTTP", "HTTPS"):
            yield problem("scheme", says=f"{self.scheme!r} is not a scheme", hint="use HTTP or HTTPS")


class TCPProbe(Model):
    """Healthy when a connection is accepted."""

    host: Text = ""
    """Host to connect to; the workload's own address when it is empty."""
    port: PortNumber
    """Port of the workload."""

    def rules(self) -> Rules:
        yield from check.check_port(("port",), self.port)


class ExecProbe(Model):
    """Healthy when the command exits with 0."""

    command: Annotated[tuple[Text, ...], Schema(minItems=1)]
    """The program and its arguments; no shell."""

    def rules(self) -> Rules:
        if not self.command:
            yield problem("command", says="there is no command", hint="name the program and its arguments")


class GrpcProbe(Model):
    """Healthy when grpc.health.v1 says so."""

    required = ("port",)

    port: PortNumber = 0
    """Port of the workload; it must be set."""
    service: Text = ""
    """The service to ask about; the whole server when it is empty."""

    def rules(self) -> Rules:
        yield from check.check_port(("port",), self.port)


class ReadinessProbe(Model):
    cel = (exactly_one("httpGet", "tcpSocket", "exec", "grpc"),)

    initial_delay_seconds: Count = 0
    """Seconds before the first probe."""
    timeout_seconds: Count = 0
    """Seconds that an answer may take; 1 when it is 0."""
    period_seconds: Count = 0
    """Seconds between probes; 10 when it is 0."""
    success_threshold: Count = 0
    """Good answers in a row that make an unhealthy workload healthy; 1 when it is 0."""
    failure_threshold: Count = 0
    """Failures in a row that make a healthy workload unhealthy; 3 when it is 0."""
    http_get: HTTPProbe | None = None
    """Ask by HTTP."""
    tcp_socket: TCPProbe | None = None
    """Connect by TCP."""
    exec: ExecProbe | None = None
    """Run a command."""
    grpc: GrpcProbe | None = None
    """Ask the gRPC health service."""

    def rules(self) -> Rules:
        ways = [name for name in ("http_get", "tcp_socket", "exec", "grpc") if getattr(self, name) is not None]
        if len(ways) != 1:
            says = "the probe says no way to ask" if not ways else "a probe asks in one way"
            yield problem(says=says, hint="set exactly one of httpGet, tcpSocket, exec, grpc")
        for name in ("initial_delay", "timeout", "period"):
            if (seconds := getattr(self, f"{name}_seconds")) < 0:
                alias = type(self).model_fields[f"{name}_seconds"].alias or name
                yield problem(alias, says=f"{seconds} is negative", hint="write 0 for the default")
        for name in ("success", "failure"):
            if (count := getattr(self, f"{name}_threshold")) < 0:
                yield problem(f"{name}Threshold", says=f"{count} is negative", hint="write 0 for the default")


class WorkloadGroup(Model):
    """The spec."""

    metadata: GroupMetadata | None = None
    """Labels and annotations of the entries."""
    template: EndpointTemplate
    """What the entries are made from."""
    probe: ReadinessProbe | None = None
    """How the agent on the machine finds out whether the workload is healthy."""

    def rules(self) -> Rules:
        if self.template.address:
            says = "each workload has an address of its own"
            yield problem("template", "address", says=says, hint="remove it", warning=True)
