"""Gateway: the ports and hosts that gateway proxies open.

Source: https://istio.io/latest/docs/reference/config/networking/gateway/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Flag, Model, Text, UInt, planned, problem
from mesh.istio.schema import Cel, Schema
from mesh.istio.texts import ONCE, LabelSet, NamespacedHost, Value
from mesh.problems import FieldProblem, Path

Rules = Iterator[FieldProblem]
PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS")
HTTP_PROTOCOLS = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB"})
TLS_PROTOCOLS = frozenset({"HTTPS", "TLS"})


class Port(Model):
    required = ("name",)

    number: Annotated[UInt, Schema(maximum=65535)]
    """The port that the gateway's proxies listen on."""
    protocol: Annotated[Text, Schema(pattern=rf"^(?i:{'|'.join(PROTOCOLS)})$", maxLength=16)]
    """HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS."""
    name: Value = ""
    """Name of the port."""
    target_port: UInt = planned(0)
    """Without effect."""

    def rules(self) -> Rules:
        if self.protocol.upper() not in PROTOCOLS:
            says = f"{self.protocol!r} is not a protocol of a gateway"
            yield problem("protocol", says=says, hint=f"use one of {', '.join(PROTOCOLS)}")
        if not self.name:
            yield problem(
                "name", says="the port has no name", hint=f"name it, such as {self.protocol.lower() or 'http'}"
            )


class ServerTLSMode(StrEnum):
    PASSTHROUGH = "PASSTHROUGH"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    AUTO_PASSTHROUGH = "AUTO_PASSTHROUGH"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"
    OPTIONAL_MUTUAL = "OPTIONAL_MUTUAL"


_TERMINATING = ["SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"]
PLANNED_MODES = frozenset({ServerTLSMode.AUTO_PASSTHROUGH, ServerTLSMode.OPTIONAL_MUTUAL})


class TLSProtocol(StrEnum):
    TLS_AUTO = "TLS_AUTO"
    TLSV1_0 = "TLSV1_0"
    TLSV1_1 = "TLSV1_1"
    TLSV1_2 = "TLSV1_2"
    TLSV1_3 = "TLSV1_3"


class TLSCertificate(Model):
    """One of several server certificates (RSA beside ECDSA), as files."""

    server_certificate: Text = ""
    """File of the certificate."""
    private_key: Text = ""
    """File of its key."""
    ca_certificates: Text = ""
    """File of the roots that clients are checked against."""


class ServerTLSSettings(Model):
    cel = (
        *(
            Cel(
                f"!has(self.{own}) || !has(self.mode) || self.mode != 'ISTIO_MUTUAL'",
                f"ISTIO_MUTUAL uses the mesh's own certificates: remove {own}",
            )
            for own in ("serverCertificate", "privateKey", "caCertificates", "credentialName")
        ),
        Cel(
            f"!has(self.mode) || !(self.mode in {_TERMINATING}) || has(self.credentialName) || "
            "has(self.credentialNames) || has(self.tlsCertificates) || "
            "(has(self.serverCertificate) && has(self.privateKey))",
            "the mode needs a certificate: set credentialName, the name of a TLS Secret",
        ),
        Cel(
            f"!has(self.mode) || !(self.mode in {_TERMINATING}) || "
            "!(has(self.credentialName) || has(self.credentialNames)) || "
            "!(has(self.serverCertificate) || has(self.privateKey) || "
            "(has(self.credentialName) && has(self.credentialNames)))",
            "credentialName, credentialNames and files exclude each other: keep one of them",
        ),
        Cel(
            "!has(self.mode) || self.mode != 'MUTUAL' || !has(self.serverCertificate) || has(self.caCertificates) || "
            "has(self.caCertCredentialName)",
            "MUTUAL verifies clients: set caCertificates or credentialName",
        ),
        Cel(
            "!has(self.minProtocolVersion) || !has(self.maxProtocolVersion) || "
            "self.minProtocolVersion == 'TLS_AUTO' || self.maxProtocolVersion == 'TLS_AUTO' || "
            "self.minProtocolVersion <= self.maxProtocolVersion",
            "minProtocolVersion is above maxProtocolVersion: swap the two",
        ),
    )

    https_redirect: Flag = False
    """Answer HTTP with a redirect to HTTPS."""
    mode: ServerTLSMode = ServerTLSMode.PASSTHROUGH
    """PASSTHROUGH, SIMPLE, MUTUAL, OPTIONAL_MUTUAL, AUTO_PASSTHROUGH, or ISTIO_MUTUAL with the mesh's certificates."""
    server_certificate: Text = ""
    """File of the certificate."""
    private_key: Text = ""
    """File of its key."""
    ca_certificates: Text = ""
    """File of the roots that clients are checked against."""
    ca_crl: Text = planned("")
    """File of revoked client certificates."""
    credential_name: Text = ""
    """Secret with certificate and key, and roots for MUTUAL."""
    credential_names: tuple[Text, ...] = planned(())
    """Secrets of several certificates, RSA beside ECDSA."""
    ca_cert_credential_name: Text = planned("")
    """Secret or ConfigMap with the roots that clients are checked against."""
    tls_certificates: tuple[TLSCertificate, ...] = planned(())
    """Several certificates as files."""
    subject_alt_names: tuple[Text, ...] = planned(())
    """Names of which the client's certificate must hold one."""
    verify_certificate_spki: tuple[Text, ...] = planned(())
    """SHA-256 of the clients' public keys, in base64."""
    verify_certificate_hash: tuple[Text, ...] = planned(())
    """SHA-256 of the clients' certificates, in hexadecimal."""
    min_protocol_version: TLSProtocol = TLSProtocol.TLS_AUTO
    """Oldest version of TLS."""
    max_protocol_version: TLSProtocol = TLSProtocol.TLS_AUTO
    """Newest version of TLS."""
    cipher_suites: Annotated[tuple[Text, ...], ONCE] = planned(())
    """Cipher suites, by Envoy's names."""

    def rules(self) -> Rules:
        versions = list(TLSProtocol)
        if self.max_protocol_version != TLSProtocol.TLS_AUTO and versions.index(
            self.min_protocol_version
        ) > versions.index(self.max_protocol_version):
            says = f"{self.min_protocol_version} is above maxProtocolVersion {self.max_protocol_version}"
            yield problem("minProtocolVersion", says=says, hint="swap the two")
        for index, suite in enumerate(self.cipher_suites):
            if suite in self.cipher_suites[:index]:
                yield problem("cipherSuites", index, says=f"{suite!r} is listed twice", hint="keep one of the two")
        yield from _certificates(self)

    def partly_planned(self) -> Iterator[Path]:
        if self.mode in PLANNED_MODES:
            yield ("mode",)

    @property
    def terminates(self) -> bool:
        """Whether the gateway itself answers the TLS handshake."""
        return self.mode not in (ServerTLSMode.PASSTHROUGH, ServerTLSMode.AUTO_PASSTHROUGH)


class Server(Model):
    """One port, and the hosts (`[namespace/]name`, with wildcard) that it serves there."""

    cel = (
        Cel(
            "(has(self.bind) && self.bind.startsWith('unix://')) == (self.port.number == 0)",
            "a port number is 1 to 65535, and 0 for a Unix socket",
        ),
        Cel(
            "!(self.port.protocol.upperAscii() in ['HTTPS', 'TLS']) || has(self.tls)",
            "a TLS port has no TLS settings: set tls.mode and tls.credentialName",
        ),
        Cel(
            "!(self.port.protocol.upperAscii() in ['HTTPS', 'TLS']) || !has(self.tls) || "
            "!has(self.tls.httpsRedirect) || !self.tls.httpsRedirect",
            "HTTPS and TLS are TLS already: redirect on the HTTP server",
        ),
        Cel(
            "self.port.protocol.upperAscii() in ['HTTPS', 'TLS'] || !has(self.tls) || !has(self.tls.mode) || "
            "self.tls.mode in ['PASSTHROUGH', 'AUTO_PASSTHROUGH']",
            "the protocol is not TLS: use HTTPS or TLS, or only tls.httpsRedirect",
        ),
    )

    port: Port
    """The port."""
    bind: Annotated[Text, Schema(maxLength=256)] = planned("")
    """Address or Unix socket to listen on."""
    hosts: Annotated[tuple[NamespacedHost, ...], Schema(minItems=1)]
    """Hosts that are served, as `[namespace/]name` with a wildcard in front."""
    tls: ServerTLSSettings | None = None
    """TLS of the port."""
    default_endpoint: Text = planned("")
    """Without effect."""
    name: Text = ""
    """Name of the server, for logs."""

    def rules(self) -> Rules:
        if self.bind.startswith("unix://"):
            if self.port.number:
                yield problem("port", "number", says="a Unix socket has no port number", hint="write 0")
        else:
            yield from check.check_port(("port", "number"), self.port.number)
            if self.bind and not check.is_ip(self.bind):
                yield problem(
                    "bind", says=f"{self.bind!r} is not an address", hint="write an IP address or unix:///path"
                )
        if not self.hosts:
            yield problem("hosts", says="the server serves no host", hint='name hosts, or "*" for all')
        for index, host in enumerate(self.hosts):
            yield from _server_host(index, host)
        yield from _tls_for_protocol(self)


class Gateway(Model):
    """The spec. An empty selector is every proxy."""

    required = ("servers",)

    servers: Annotated[tuple[Server, ...], Schema(minItems=1, maxItems=8192)] = ()
    """The ports."""
    selector: LabelSet = EMPTY
    """Labels of the gateway's pods."""

    def rules(self) -> Rules:
        if not self.servers:
            yield problem("servers", says="the gateway opens no port", hint="add a server")
        ports = [server.port.name for server in self.servers]
        names = [server.name for server in self.servers]
        for index, server in enumerate(self.servers):
            if server.port.name and server.port.name in ports[:index]:
                says = f"{server.port.name!r} names two ports"
                yield problem("servers", index, "port", "name", says=says, hint="give each server's port its own name")
            if server.name and server.name in names[:index]:
                says = f"{server.name!r} names two servers"
                yield problem("servers", index, "name", says=says, hint="give each its own name")
        yield from _one_protocol_a_port(self.servers)
        yield from check.check_labels(("selector",), self.selector)


def _certificates(tls: ServerTLSSettings) -> Rules:
    """What each mode needs and what it excludes."""
    files = {
        "serverCertificate": tls.server_certificate,
        "privateKey": tls.private_key,
        "caCertificates": tls.ca_certificates,
    }
    stores = bool(tls.credential_name or tls.credential_names)
    if tls.mode == ServerTLSMode.ISTIO_MUTUAL:
        for name, value in {**files, "credentialName": tls.credential_name}.items():
            if value:
                yield problem(name, says="ISTIO_MUTUAL uses the mesh's own certificates", hint=f"remove {name}")
        return
    if not tls.terminates:
        for name, value in {**files, "credentialName": tls.credential_name}.items():
            if value:
                yield problem(
                    name, says=f"{tls.mode} does not use it", hint=f"remove {name}, or set mode: SIMPLE", warning=True
                )
        return
    if tls.credential_name and tls.credential_names:
        yield problem("credentialNames", says="credentialName and credentialNames exclude each other", hint="keep one")
    if stores:
        for name in ("serverCertificate", "privateKey"):
            if files[name]:
                yield problem(name, says=f"credentialName and {name} exclude each other", hint="keep one of the two")
        return
    if tls.tls_certificates:
        return
    for name in ("serverCertificate", "privateKey"):
        if not files[name]:
            yield problem(
                name, says=f"{tls.mode} needs a certificate", hint="set credentialName, the name of a TLS Secret"
            )
    if tls.mode == ServerTLSMode.MUTUAL and not tls.ca_certificates and not tls.ca_cert_credential_name:
        yield problem("caCertificates", says="MUTUAL verifies clients", hint="set caCertificates or credentialName")


def _tls_for_protocol(server: Server) -> Rules:
    protocol = server.port.protocol.upper()
    if protocol in TLS_PROTOCOLS:
        if server.tls is None:
            yield problem("tls", says=f"{protocol} has no TLS settings", hint="set tls.mode and tls.credentialName")
        elif server.tls.https_redirect:
            yield problem("tls", "httpsRedirect", says=f"{protocol} is TLS already", hint="redirect on the HTTP server")
    elif server.tls is not None:
        others = sorted(server.tls.model_fields_set - {"https_redirect"})
        meaningful = any(getattr(server.tls, name) for name in others if name != "mode") or server.tls.terminates
        if meaningful:
            yield problem("tls", says=f"{protocol} is not TLS", hint="use protocol HTTPS or TLS, or only httpsRedirect")
        if server.tls.https_redirect and protocol not in HTTP_PROTOCOLS:
            yield problem("tls", "httpsRedirect", says=f"{protocol} is not HTTP", hint="remove httpsRedirect")


def _one_protocol_a_port(servers: tuple[Server, ...]) -> Rules:
    """Two servers can share a port only when Envoy can tell their connections apart."""
    first: dict[tuple[str, int], str] = {}
    for index, server in enumerate(servers):
        protocol = server.port.protocol.upper()
        family = "TLS" if protocol in TLS_PROTOCOLS else "HTTP" if protocol in HTTP_PROTOCOLS else "TCP"
        before = first.setdefault((server.bind, server.port.number), family)
        if server.port.number and before != family:
            says = f"port {server.port.number} is {before} in an earlier server, {family} here"
            yield problem("servers", index, "port", "protocol", says=says, hint="use another port")


def _server_host(index: int, host: str) -> Rules:
    namespace, slash, name = host.partition("/")
    if slash and namespace not in ("*", ".") and not check.is_dns_label(namespace):
        yield problem(
            "hosts",
            index,
            says=f"{namespace!r} is not a namespace",
            hint="write <namespace>/<host>, */<host> or ./<host>",
        )
    error = check.host_error(name if slash else host, wildcard=True)
    if error and not check.is_ip(host):
        yield problem("hosts", index, says=error, hint="write [<namespace>/]<DNS name>, with a wildcard only in front")
