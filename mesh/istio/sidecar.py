"""Sidecar: what the proxies of some workloads listen on, and which services they know.

Source: https://istio.io/latest/docs/reference/config/networking/sidecar/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import Model, OptionalPort, Text, problem
from mesh.istio.destination import Destination
from mesh.istio.destination_rule import ConnectionPoolSettings
from mesh.istio.gateway import ServerTLSMode, ServerTLSSettings
from mesh.istio.schema import Cel, Schema
from mesh.istio.selectors import NetworkSelector
from mesh.istio.texts import PROTOCOLS, EgressHost
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]


class SidecarPort(Model):
    number: OptionalPort = 0
    """The port that the proxy listens on."""
    protocol: Annotated[Text, Schema(pattern=rf"^(?i:{'|'.join(PROTOCOLS)})?$", maxLength=16)] = ""
    """HTTP, HTTPS, GRPC, HTTP2, MONGO, MYSQL, REDIS, TCP, TLS or UDP."""
    name: Text = ""
    """Name of the port."""
    target_port: OptionalPort = 0
    """Without effect here; defaultEndpoint says where to."""

    def rules(self) -> Rules:
        if self.protocol and self.protocol.upper() not in PROTOCOLS:
            says = f"{self.protocol!r} is not a protocol"
            yield problem("protocol", says=says, hint=f"use one of {', '.join(PROTOCOLS)}")


class CaptureMode(StrEnum):
    """How traffic gets to the listener."""

    DEFAULT = "DEFAULT"
    IPTABLES = "IPTABLES"
    NONE = "NONE"


class IngressListener(Model):
    """A port of the workload that the proxy serves, and where it sends what comes in."""

    cel = (
        Cel("has(self.port.number) && self.port.number > 0", "the listener has no port: set port.number"),
        Cel(
            "!has(self.tls) || !has(self.tls.mode) || self.tls.mode != 'ISTIO_MUTUAL'",
            "ISTIO_MUTUAL is for gateways: use SIMPLE or MUTUAL",
        ),
    )

    port: SidecarPort
    """The port that the proxy listens on."""
    bind: Text = ""
    """Address that the proxy listens on; found out when it is empty."""
    capture_mode: CaptureMode = CaptureMode.DEFAULT
    """How traffic gets to the listener."""
    default_endpoint: Annotated[
        Text, Schema(pattern=r"^(unix://.*|(127\.0\.0\.1|0\.0\.0\.0|\[?::1?\]?):[0-9]{1,5})?$")
    ] = ""
    """Where the app listens: `127.0.0.1:port`, `[::1]:port`, `0.0.0.0:port`, `[::]:port` or `unix:///path`."""
    tls: ServerTLSSettings | None = None
    """TLS that the proxy terminates for clients outside the mesh."""
    connection_pool: ConnectionPoolSettings | None = None
    """How the proxy connects to the app."""

    def rules(self) -> Rules:
        yield from check.check_port(("port", "number"), self.port.number)
        yield from _bind(self.bind, self.capture_mode)
        if self.default_endpoint:
            yield from _endpoint(self.default_endpoint)
        if self.tls is not None and self.tls.mode is ServerTLSMode.ISTIO_MUTUAL:
            hint = "use SIMPLE or MUTUAL; mutual TLS of the mesh is set by PeerAuthentication"
            yield problem("tls", "mode", says="ISTIO_MUTUAL is for gateways", hint=hint)


class EgressListener(Model):
    """A port that the workload connects to, and the hosts that it finds there."""

    cel = (
        Cel("!has(self.bind) || has(self.port)", "an address without a port: set port, or remove bind"),
        Cel(
            "has(self.port) || !has(self.captureMode) || self.captureMode != 'NONE'",
            "captureMode NONE without a port gets no traffic: set port",
        ),
    )
    required = ("hosts",)

    port: SidecarPort | None = None
    """The port; without one, all ports of the hosts that no other listener has."""
    bind: Text = ""
    """Address that the proxy listens on; found out when it is empty."""
    capture_mode: CaptureMode = CaptureMode.DEFAULT
    """How traffic gets to the listener."""
    hosts: Annotated[tuple[EgressHost, ...], Schema(minItems=1)] = ()
    """Services that the workload sees, as `namespace/name`: `./*` of its own namespace, `*/*` of all, `~/*` none."""

    def rules(self) -> Rules:
        if not self.hosts:
            yield problem("hosts", says="the listener reaches no host", hint='name hosts, such as "./*"')
        for index, host in enumerate(self.hosts):
            yield from _egress_host(index, host)
        if self.port is None:
            if self.bind:
                yield problem("bind", says="an address without a port", hint="set port, or remove bind")
            if self.capture_mode is CaptureMode.NONE:
                yield problem("captureMode", says="NONE without a port gets no traffic", hint="set port")
        elif self.bind.startswith("unix://"):
            if self.port.number:
                yield problem("port", "number", says="a Unix socket has no port number", hint="remove it")
        else:
            yield from check.check_port(("port", "number"), self.port.number)
        yield from _bind(self.bind, self.capture_mode)


class OutboundMode(StrEnum):
    """What happens to connections to addresses that the mesh does not know."""

    REGISTRY_ONLY = "REGISTRY_ONLY"
    ALLOW_ANY = "ALLOW_ANY"


class OutboundTrafficPolicy(Model):
    cel = (
        Cel(
            "!has(self.egressProxy) || (has(self.mode) && self.mode == 'ALLOW_ANY' && has(self.egressProxy.port))",
            "an egress proxy goes with mode ALLOW_ANY, and has a port",
        ),
    )

    mode: OutboundMode = OutboundMode.REGISTRY_ONLY
    """REGISTRY_ONLY refuses what the mesh does not know, ALLOW_ANY lets it through."""
    egress_proxy: Destination | None = None
    """The service that connections to unknown addresses go through."""

    def rules(self) -> Rules:
        if self.egress_proxy is None:
            return
        if self.mode is not OutboundMode.ALLOW_ANY:
            yield problem("egressProxy", says="it is used with ALLOW_ANY only", hint="set mode: ALLOW_ANY")
        if self.egress_proxy.port is None:
            yield problem("egressProxy", "port", says="the egress proxy has no port", hint="set port.number")


class Sidecar(Model):
    """The spec. Without a selector it is for all workloads of its namespace, or, in the root namespace, of the mesh."""

    workload_selector: NetworkSelector | None = None
    """The workloads that it is for."""
    ingress: Annotated[tuple[IngressListener, ...], Schema(maxItems=4096)] = ()
    """What the proxies listen on for the workload; when empty, what its services and the pod say."""
    egress: tuple[EgressListener, ...] = ()
    """What the workload may reach; when empty, everything of the mesh."""
    inbound_connection_pool: ConnectionPoolSettings | None = None
    """How the proxies connect to the app, for all ports."""
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    """What happens to connections to addresses that the mesh does not know."""

    def rules(self) -> Rules:
        numbers = [listener.port.number for listener in self.ingress]
        for index, number in enumerate(numbers):
            if number and number in numbers[:index]:
                yield problem("ingress", index, "port", says=f"port {number} stands twice", hint="merge the two")
        without = [index for index, listener in enumerate(self.egress) if listener.port is None]
        for index in without[1:]:
            says = "another listener is already for all other ports"
            yield problem("egress", index, "port", says=says, hint="set port, or merge the two")
        if without and without[0] != len(self.egress) - 1:
            yield problem(
                "egress",
                without[0],
                "port",
                says="the listener for all other ports is not the last",
                hint="move it to the end",
                warning=True,
            )
        seen: dict[tuple[str, int], int] = {}
        for index, each in enumerate(self.egress):
            if each.port is not None and each.port.number:
                first = seen.setdefault((each.bind, each.port.number), index)
                if first != index:
                    says = f"port {each.port.number} stands twice"
                    yield problem("egress", index, "port", says=says, hint=f"merge it with egress[{first}]")


def _bind(bind: str, mode: CaptureMode) -> Rules:
    if bind.startswith("unix://"):
        if mode is CaptureMode.IPTABLES:
            yield problem("captureMode", says="iptables does not redirect to a Unix socket", hint="remove captureMode")
    elif bind and not check.is_ip(bind):
        yield problem("bind", says=f"{bind!r} is not an address", hint="write an IP address or unix:///path")


def _endpoint(text: str) -> Rules:
    """Where the app listens: loopback or the pod's own address only, so that a Sidecar opens no way to elsewhere."""
    if text.startswith("unix://"):
        return
    host, colon, port = text.rpartition(":")
    if host.strip("[]") not in ("127.0.0.1", "::1", "0.0.0.0", "::") or not colon:
        hint = "write 127.0.0.1:port, 0.0.0.0:port, [::1]:port, [::]:port or unix:///path"
        yield problem("defaultEndpoint", says=f"{text!r} is not an endpoint of the workload", hint=hint)
    elif not (port.isascii() and port.isdigit()) or not 1 <= int(port[:6]) <= 65535:
        yield problem("defaultEndpoint", says=f"{port!r} is not a port number", hint="use 1 to 65535")


def _egress_host(index: int, host: str) -> Rules:
    namespace, slash, name = host.partition("/")
    if not slash:
        yield problem("hosts", index, says=f"{host!r} names no namespace", hint=f"write ./{host} or */{host}")
        return
    if namespace not in ("*", ".", "~") and not check.is_dns_label(namespace):
        hint = "write <namespace>/<host>, */<host>, ./<host> or ~/*"
        yield problem("hosts", index, says=f"{namespace!r} is not a namespace", hint=hint)
    if error := check.host_error(name, wildcard=True):
        yield problem("hosts", index, says=error, hint="write a DNS name, with a wildcard only in front")
    elif namespace == "~" and name != "*":
        yield problem("hosts", index, says="~ is no namespace, so no host is in it", hint="write ~/*")
