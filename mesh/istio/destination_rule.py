"""DestinationRule: subsets of a service's endpoints, and how to talk to them.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from mesh.istio import rules as check
from mesh.istio.base import (
    EMPTY,
    Duration,
    Flag,
    Int,
    Model,
    PortNumber,
    Real,
    Text,
    TimeSpan,
    UInt,
    planned,
    problem,
)
from mesh.istio.destination import PortSelector
from mesh.istio.load_balancing import LoadBalancerSettings
from mesh.istio.schema import Cel, Schema, at_least_one, not_together
from mesh.istio.selectors import WorkloadSelector
from mesh.istio.texts import Count, ExportTo, Host, LabelSet, OneHost, SubsetName
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]


class TcpKeepalive(Model):
    probes: UInt = planned(0)
    """Probes without an answer until the connection counts as dead."""
    time: Duration | None = None
    """Idle time until the first probe."""
    interval: Duration | None = planned()
    """Time between probes."""

    def rules(self) -> Rules:
        yield from check.check_duration(("time",), self.time, zero=True)
        yield from check.check_duration(("interval",), self.interval, zero=True)


class TCPSettings(Model):
    max_connections: Count = 0
    """Most connections to the service, from each client proxy."""
    connect_timeout: TimeSpan | None = None
    """Time until a connection must be there."""
    tcp_keepalive: TcpKeepalive | None = None
    """TCP keepalive."""
    max_connection_duration: TimeSpan | None = planned()
    """How long a connection may live."""
    idle_timeout: Duration | None = planned()
    """How long a connection may be idle."""

    def rules(self) -> Rules:
        yield from _not_negative(self, "max_connections")
        yield from check.check_duration(("connectTimeout",), self.connect_timeout)
        yield from check.check_duration(("maxConnectionDuration",), self.max_connection_duration)
        yield from check.check_duration(("idleTimeout",), self.idle_timeout, zero=True)


class H2UpgradePolicy(StrEnum):
    DEFAULT = "DEFAULT"
    DO_NOT_UPGRADE = "DO_NOT_UPGRADE"
    UPGRADE = "UPGRADE"


class HTTPSettings(Model):
    cel = (
        Cel(
            "!(has(self.useClientProtocol) && self.useClientProtocol && has(self.h2UpgradePolicy) && "
            "self.h2UpgradePolicy == 'UPGRADE')",
            "useClientProtocol keeps the client's protocol, UPGRADE changes it: keep one of the two",
        ),
    )

    http1_max_pending_requests: Count = 0
    """Most requests that wait for a connection."""
    http2_max_requests: Count = 0
    """Most requests at a time."""
    max_requests_per_connection: Count = 0
    """Requests until a connection is closed; 1 turns keep-alive off."""
    max_retries: Count = 0
    """Most retries at a time."""
    idle_timeout: Duration | None = None
    """How long a connection without requests stays open."""
    h2_upgrade_policy: H2UpgradePolicy = planned(H2UpgradePolicy.DEFAULT)
    """Whether HTTP/1.1 is sent on as HTTP/2."""
    use_client_protocol: Flag = planned(False)
    """Keep the client's protocol."""
    max_concurrent_streams: Count = planned(0)
    """Most streams on one HTTP/2 connection."""

    def rules(self) -> Rules:
        counts = ("http1_max_pending_requests", "http2_max_requests", "max_requests_per_connection", "max_retries")
        yield from _not_negative(self, *counts, "max_concurrent_streams")
        yield from check.check_duration(("idleTimeout",), self.idle_timeout, zero=True)
        if self.use_client_protocol and self.h2_upgrade_policy == H2UpgradePolicy.UPGRADE:
            says = "useClientProtocol keeps the client's protocol, UPGRADE changes it"
            yield problem("h2UpgradePolicy", says=says, hint="keep one of the two")


class ConnectionPoolSettings(Model):
    cel = (at_least_one("tcp", "http"),)

    tcp: TCPSettings | None = None
    """Limits for all connections."""
    http: HTTPSettings | None = None
    """Limits for HTTP."""

    def rules(self) -> Rules:
        if self.tcp is None and self.http is None:
            yield problem(says="the connection pool says nothing", hint="set tcp, http or both")


class OutlierDetection(Model):
    """None where Istio's default applies (5 for `consecutive_5xx_errors`); 0 turns a detector off."""

    cel = (
        Cel(
            "!has(self.consecutiveLocalOriginFailures) || self.consecutiveLocalOriginFailures == 0 || "
            "(has(self.splitExternalLocalOriginErrors) && self.splitExternalLocalOriginErrors)",
            "consecutiveLocalOriginFailures counts only with splitExternalLocalOriginErrors: true",
        ),
    )

    consecutive_errors: Int = 0
    """Without effect; use consecutive5xxErrors."""
    split_external_local_origin_errors: Flag = planned(False)
    """Count failures to connect apart from error responses."""
    consecutive_local_origin_failures: UInt | None = planned()
    """Failures to connect in a row until an endpoint is ejected."""
    consecutive_gateway_errors: UInt | None = None
    """Responses 502, 503, 504 in a row until an endpoint is ejected."""
    consecutive_5xx_errors: UInt | None = None
    """Responses 5xx in a row until an endpoint is ejected."""
    interval: TimeSpan | None = None
    """Time between two looks."""
    base_ejection_time: TimeSpan | None = None
    """How long an endpoint is ejected, times the number of its ejections."""
    max_ejection_percent: Annotated[Int, Schema(minimum=0, maximum=100)] = 0
    """Largest share of the endpoints that is ejected."""
    min_health_percent: Annotated[Int, Schema(minimum=0, maximum=100)] = 0
    """Below this share of healthy endpoints nothing is ejected."""

    def rules(self) -> Rules:
        yield from check.check_duration(("interval",), self.interval)
        yield from check.check_duration(("baseEjectionTime",), self.base_ejection_time)
        yield from check.check_percentage(("maxEjectionPercent",), self.max_ejection_percent)
        yield from check.check_percentage(("minHealthPercent",), self.min_health_percent)
        if "consecutive_errors" in self.model_fields_set:
            yield problem(
                "consecutiveErrors",
                says="Istio removed this field: it has no effect",
                hint="use consecutive5xxErrors",
                warning=True,
            )
        if self.consecutive_local_origin_failures and not self.split_external_local_origin_errors:
            yield problem(
                "consecutiveLocalOriginFailures",
                says="it counts only with splitExternalLocalOriginErrors",
                hint="set splitExternalLocalOriginErrors: true",
            )


class ClientTLSMode(StrEnum):
    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


class ClientTLSSettings(Model):
    cel = (
        # One rule each: together they would exceed the API server's budget for a rule.
        *(
            Cel(
                f"!has(self.{own}) || !has(self.mode) || self.mode != 'ISTIO_MUTUAL'",
                f"ISTIO_MUTUAL uses the mesh's own certificates: remove {own}",
            )
            for own in ("clientCertificate", "privateKey", "caCertificates", "credentialName")
        ),
        Cel(
            "!has(self.mode) || self.mode != 'MUTUAL' || has(self.credentialName) || "
            "(has(self.clientCertificate) && has(self.privateKey))",
            "MUTUAL presents a client certificate: set credentialName, or clientCertificate and privateKey",
        ),
        not_together("credentialName", "clientCertificate", "privateKey", "caCertificates"),
    )

    mode: ClientTLSMode = ClientTLSMode.DISABLE
    """DISABLE, SIMPLE, MUTUAL with own certificates, or ISTIO_MUTUAL with those of the mesh."""
    client_certificate: Text = ""
    """File of the client's certificate, for MUTUAL."""
    private_key: Text = ""
    """File of its key, for MUTUAL."""
    ca_certificates: Text = ""
    """File of the roots that the server's certificate is checked against."""
    credential_name: Text = planned("")
    """Secret with certificate, key and roots."""
    subject_alt_names: tuple[Text, ...] = ()
    """Names of which the server's certificate must hold one."""
    sni: Text = ""
    """Server name to ask for."""
    insecure_skip_verify: Flag | None = None
    """Do not check the server's certificate."""
    ca_crl: Text = planned("")
    """File of revoked certificates."""

    def rules(self) -> Rules:
        files = {
            "clientCertificate": self.client_certificate,
            "privateKey": self.private_key,
            "caCertificates": self.ca_certificates,
        }
        if self.mode == ClientTLSMode.ISTIO_MUTUAL:
            for name, value in {**files, "credentialName": self.credential_name}.items():
                if value:
                    yield problem(name, says="ISTIO_MUTUAL uses the mesh's own certificates", hint=f"remove {name}")
        elif self.credential_name:
            for name, value in files.items():
                if value:
                    yield problem(
                        name, says=f"credentialName and {name} exclude each other", hint="keep one of the two"
                    )
        elif self.mode == ClientTLSMode.MUTUAL:
            for name in ("clientCertificate", "privateKey"):
                if not files[name]:
                    yield problem(
                        name, says="MUTUAL presents a client certificate", hint=f"set {name} or credentialName"
                    )


class PortTrafficPolicy(Model):
    port: PortSelector
    """The port of the service."""
    load_balancer: LoadBalancerSettings | None = None
    """How endpoints are chosen."""
    connection_pool: ConnectionPoolSettings | None = None
    """Limits of connections."""
    outlier_detection: OutlierDetection | None = None
    """Which endpoints are left out for a while."""
    tls: ClientTLSSettings | None = None
    """TLS of the connections."""


class TunnelSettings(Model):
    protocol: Annotated[Text, Schema(enum=["", "CONNECT", "POST"])] = ""
    """CONNECT (the default) or POST."""
    target_host: OneHost
    """Host that the tunnel leads to."""
    target_port: PortNumber
    """Port that the tunnel leads to."""

    def rules(self) -> Rules:
        if self.protocol not in ("", "CONNECT", "POST"):
            yield problem("protocol", says=f"{self.protocol!r} is not a way to tunnel", hint="use CONNECT or POST")
        yield from check.check_host(("targetHost",), self.target_host, wildcard=False, address=True)
        yield from check.check_port(("targetPort",), self.target_port)


class ProxyProtocolVersion(StrEnum):
    V1 = "V1"
    V2 = "V2"


class ProxyProtocol(Model):
    version: ProxyProtocolVersion = ProxyProtocolVersion.V1
    """Version of the PROXY protocol."""


class RetryBudget(Model):
    percent: Annotated[Real | None, Schema(minimum=0, maximum=100)] = None
    """Most retries, in percent of the requests at a time."""
    min_retry_concurrency: UInt = 0
    """Retries that are always allowed."""

    def rules(self) -> Rules:
        yield from check.check_percentage(("percent",), self.percent)


class TrafficPolicy(Model):
    load_balancer: LoadBalancerSettings | None = None
    """How endpoints are chosen."""
    connection_pool: ConnectionPoolSettings | None = None
    """Limits of connections."""
    outlier_detection: OutlierDetection | None = None
    """Which endpoints are left out for a while."""
    tls: ClientTLSSettings | None = None
    """TLS of the connections."""
    port_level_settings: Annotated[tuple[PortTrafficPolicy, ...], Schema(maxItems=256)] = ()
    """Policies for single ports, instead of the others."""
    tunnel: TunnelSettings | None = planned()
    """Tunnel TCP through HTTP."""
    proxy_protocol: ProxyProtocol | None = planned()
    """Tell the server the client's address."""
    retry_budget: RetryBudget | None = planned()
    """Limit of retries."""

    def rules(self) -> Rules:
        if not self.model_fields_set:
            yield problem(
                says="the traffic policy says nothing", hint="set loadBalancer, connectionPool, outlierDetection or tls"
            )
        numbers = [settings.port.number for settings in self.port_level_settings]
        for index, number in enumerate(numbers):
            if number in numbers[:index]:
                yield problem(
                    "portLevelSettings",
                    index,
                    "port",
                    "number",
                    says=f"port {number} is set twice",
                    hint="merge the two",
                )


class Subset(Model):
    name: Annotated[SubsetName, Schema(minLength=1)]
    """Name that routes refer to."""
    labels: LabelSet = EMPTY
    """Labels of the endpoints of this subset."""
    traffic_policy: Annotated[TrafficPolicy | None, Schema(minProperties=1)] = None
    """Policy for this subset, instead of the rule's."""

    def rules(self) -> Rules:
        if not check.is_dns_label(self.name):
            yield problem(
                "name", says=f"{self.name!r} is not a subset's name", hint="use lower-case letters, digits, dashes"
            )
        yield from check.check_labels(("labels",), self.labels)


class DestinationRule(Model):
    """The spec. Subset policies override those of the rule; port-level ones override both."""

    host: Host
    """The service, or services by a wildcard."""
    traffic_policy: Annotated[TrafficPolicy | None, Schema(minProperties=1)] = None
    """Policy for all connections to it."""
    subsets: Annotated[
        tuple[Subset, ...],
        Schema(**{"maxItems": 1024, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """Named groups of its endpoints."""
    export_to: ExportTo = ()
    """Namespaces whose clients the rule is for; everybody when empty."""
    workload_selector: WorkloadSelector | None = planned()
    """The clients that the rule is for; all of them without it."""

    def rules(self) -> Rules:
        yield from check.check_host(("host",), self.host, wildcard=True, address=True)
        names = [subset.name for subset in self.subsets]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield problem(
                    "subsets", index, "name", says=f"{name!r} names two subsets", hint="give each its own name"
                )
        yield from check.check_export_to(self.export_to)


def _not_negative(message: Model, *fields: str) -> Rules:
    for field in fields:
        value = getattr(message, field)
        if value < 0:
            alias = type(message).model_fields[field].alias or field
            yield problem(alias, says=f"{value} is negative", hint="remove it for the default")
