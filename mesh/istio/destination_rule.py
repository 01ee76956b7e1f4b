"""DestinationRule: subsets of a service's endpoints, and how to talk to them.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Duration, Flag, Int, Labels, Map, Model, Real, Text, UInt, Whole, planned, problem
from mesh.istio.destination import PortSelector
from mesh.istio.selectors import WorkloadSelector
from mesh.problems import FieldProblem

Rules = Iterator[FieldProblem]


class SimpleLB(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    LEAST_CONN = "LEAST_CONN"
    RANDOM = "RANDOM"
    PASSTHROUGH = "PASSTHROUGH"
    ROUND_ROBIN = "ROUND_ROBIN"
    LEAST_REQUEST = "LEAST_REQUEST"


class RingHash(Model):
    minimum_ring_size: Whole = 0
    """Least number of virtual nodes on the ring; more spread the load better."""


class MagLev(Model):
    table_size: Whole = 0
    """Size of the table, a prime number."""


class CookieAttribute(Model):
    name: Text
    """Name of the attribute, such as SameSite."""
    value: Text = ""
    """Its value, if it has one."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the attribute has no name", hint="name it, such as SameSite")


class HTTPCookie(Model):
    """`ttl` None: the application sets the cookie; 0: Envoy sets a session cookie."""

    name: Text
    """Name of the cookie."""
    path: Text = ""
    """Path of the cookie."""
    ttl: Duration | None = None
    """How long the cookie lives; without it the application sets the cookie."""
    attributes: tuple[CookieAttribute, ...] = planned(())
    """Further attributes of the cookie."""

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the cookie has no name", hint="name it")
        yield from check.check_duration(("ttl",), self.ttl, zero=True)


class ConsistentHashLB(Model):
    http_header_name: Text | None = None
    """Hash of this header."""
    http_cookie: HTTPCookie | None = None
    """Hash of this cookie, which Envoy sets if it must."""
    use_source_ip: Flag | None = None
    """Hash of the client's address."""
    http_query_parameter_name: Text | None = None
    """Hash of this query parameter."""
    ring_hash: RingHash | None = planned()
    """Envoy's ring hash."""
    maglev: MagLev | None = planned()
    """Envoy's Maglev."""
    minimum_ring_size: Whole = planned(0)
    """Least number of virtual nodes; use ringHash."""

    def rules(self) -> Rules:
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if sum(key is not None for key in keys) != 1:
            names = "httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName"
            yield problem(says="a consistent hash has exactly one key", hint=f"set one of {names}")
        if self.http_header_name is not None:
            yield from check.check_header_name(("httpHeaderName",), self.http_header_name)
        if self.http_query_parameter_name == "":
            yield problem("httpQueryParameterName", says="the name is empty", hint="name the query parameter")
        if self.ring_hash is not None and self.maglev is not None:
            yield problem("maglev", says="ringHash and maglev exclude each other", hint="keep one of the two")
        if self.ring_hash is not None and self.minimum_ring_size:
            yield problem("minimumRingSize", says="ringHash says it already", hint="set ringHash.minimumRingSize only")


class Distribute(Model):
    from_: Text = ""
    """Locality of the client: `region/zone/subzone`, with `*` at the end."""
    to: Map[UInt] = EMPTY
    """Share of the traffic in percent, by locality of the endpoints."""


class Failover(Model):
    from_: Text = ""
    """Region of the client."""
    to: Text = ""
    """Region whose endpoints take over."""


class LocalityLoadBalancerSetting(Model):
    distribute: tuple[Distribute, ...] = ()
    """Shares by locality."""
    failover: tuple[Failover, ...] = ()
    """Which region takes over for which."""
    failover_priority: tuple[Text, ...] = ()
    """Labels that make an endpoint near, the most important first."""
    enabled: Flag | None = None
    """Whether localities count; as the mesh says by default."""

    def rules(self) -> Rules:
        if self.distribute and (self.failover or self.failover_priority):
            yield problem(says="distribute and failover exclude each other", hint="keep one of them")
        for index, share in enumerate(self.distribute):
            if sum(share.to.values()) != 100:
                yield problem(
                    "distribute",
                    index,
                    "to",
                    says=f"the shares add to {sum(share.to.values())}",
                    hint="make them add to 100",
                )
        for index, pair in enumerate(self.failover):
            if pair.from_ == pair.to:
                yield problem("failover", index, says="a region cannot fail over to itself", hint="name another region")


class WarmupConfiguration(Model):
    duration: Duration | None = None
    """How long a new endpoint gets less than its share."""
    minimum_percent: Real | None = None
    """Share that it gets at the beginning."""
    aggression: Real | None = None
    """How fast its share grows; 1 is linear."""

    def rules(self) -> Rules:
        if self.duration is None:
            yield problem("duration", says="the warm-up has no length", hint="set it, such as 30s")
        yield from check.check_percentage(("minimumPercent",), self.minimum_percent)
        if self.aggression is not None and self.aggression < 1:
            yield problem("aggression", says=f"{self.aggression:g} is less than 1", hint="use 1 for a linear warm-up")


class LoadBalancerSettings(Model):
    simple: SimpleLB | None = None
    """A standard algorithm."""
    consistent_hash: ConsistentHashLB | None = None
    """Requests with the same key go to the same endpoint."""
    locality_lb_setting: LocalityLoadBalancerSetting | None = planned()
    """Prefer near endpoints, or spread by locality."""
    warmup_duration_secs: Duration | None = planned()
    """How long a new endpoint gets less than its share; use warmup."""
    warmup: WarmupConfiguration | None = planned()
    """Let new endpoints take their share slowly."""

    def rules(self) -> Rules:
        if self.simple is not None and self.consistent_hash is not None:
            yield problem(
                "consistentHash", says="simple and consistentHash exclude each other", hint="keep one of the two"
            )
        yield from check.check_duration(("warmupDurationSecs",), self.warmup_duration_secs, zero=True)


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
    max_connections: Int = 0
    """Most connections to the service, from each client proxy."""
    connect_timeout: Duration | None = None
    """Time until a connection must be there."""
    tcp_keepalive: TcpKeepalive | None = None
    """TCP keepalive."""
    max_connection_duration: Duration | None = planned()
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
    http1_max_pending_requests: Int = 0
    """Most requests that wait for a connection."""
    http2_max_requests: Int = 0
    """Most requests at a time."""
    max_requests_per_connection: Int = 0
    """Requests until a connection is closed; 1 turns keep-alive off."""
    max_retries: Int = 0
    """Most retries at a time."""
    idle_timeout: Duration | None = None
    """How long a connection without requests stays open."""
    h2_upgrade_policy: H2UpgradePolicy = planned(H2UpgradePolicy.DEFAULT)
    """Whether HTTP/1.1 is sent on as HTTP/2."""
    use_client_protocol: Flag = planned(False)
    """Keep the client's protocol."""
    max_concurrent_streams: Int = planned(0)
    """Most streams on one HTTP/2 connection."""

    def rules(self) -> Rules:
        counts = ("http1_max_pending_requests", "http2_max_requests", "max_requests_per_connection", "max_retries")
        yield from _not_negative(self, *counts, "max_concurrent_streams")
        yield from check.check_duration(("idleTimeout",), self.idle_timeout, zero=True)
        if self.use_client_protocol and self.h2_upgrade_policy == H2UpgradePolicy.UPGRADE:
            says = "useClientProtocol keeps the client's protocol, UPGRADE changes it"
            yield problem("h2UpgradePolicy", says=says, hint="keep one of the two")


class ConnectionPoolSettings(Model):
    tcp: TCPSettings | None = None
    """Limits for all connections."""
    http: HTTPSettings | None = None
    """Limits for HTTP."""

    def rules(self) -> Rules:
        if self.tcp is None and self.http is None:
            yield problem(says="the connection pool says nothing", hint="set tcp, http or both")


class OutlierDetection(Model):
    """None where Istio's default applies (5 for `consecutive_5xx_errors`); 0 turns a detector off."""

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
    interval: Duration | None = None
    """Time between two looks."""
    base_ejection_time: Duration | None = None
    """How long an endpoint is ejected, times the number of its ejections."""
    max_ejection_percent: Int = 0
    """Largest share of the endpoints that is ejected."""
    min_health_percent: Int = 0
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
    protocol: Text = ""
    """CONNECT (the default) or POST."""
    target_host: Text
    """Host that the tunnel leads to."""
    target_port: UInt
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
    percent: Real | None = None
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
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
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
    name: Text
    """Name that routes refer to."""
    labels: Labels = EMPTY
    """Labels of the endpoints of this subset."""
    traffic_policy: TrafficPolicy | None = None
    """Policy for this subset, instead of the rule's."""

    def rules(self) -> Rules:
        if not check.is_dns_label(self.name):
            yield problem(
                "name", says=f"{self.name!r} is not a subset's name", hint="use lower-case letters, digits, dashes"
            )
        yield from check.check_labels(("labels",), self.labels)


class DestinationRule(Model):
    """The spec. Subset policies override those of the rule; port-level ones override both."""

    host: Text
    """The service, or services by a wildcard."""
    traffic_policy: TrafficPolicy | None = None
    """Policy for all connections to it."""
    subsets: tuple[Subset, ...] = ()
    """Named groups of its endpoints."""
    export_to: tuple[Text, ...] = ()
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
