"""DestinationRule: subsets of a service's endpoints, and how to talk to them.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from mesh.istio import rules as check
from mesh.istio.base import EMPTY, Duration, Flag, Int, Labels, Map, Model, Real, Text, UInt, Whole, planned, problem
from mesh.istio.destination import PortSelector
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


class MagLev(Model):
    table_size: Whole = 0


class HTTPCookie(Model):
    """`ttl` None: the application sets the cookie; 0: Envoy sets a session cookie."""

    name: Text
    path: Text = ""
    ttl: Duration | None = None

    def rules(self) -> Rules:
        if not self.name:
            yield problem("name", says="the cookie has no name", hint="name it")
        yield from check.check_duration(("ttl",), self.ttl, zero=True)


class ConsistentHashLB(Model):
    http_header_name: Text | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: Flag | None = None
    http_query_parameter_name: Text | None = None
    ring_hash: RingHash | None = planned()
    maglev: MagLev | None = planned()
    minimum_ring_size: Whole = planned(0)

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
    to: Map[UInt] = EMPTY


class Failover(Model):
    from_: Text = ""
    to: Text = ""


class LocalityLoadBalancerSetting(Model):
    distribute: tuple[Distribute, ...] = ()
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[Text, ...] = ()
    enabled: Flag | None = None

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
    minimum_percent: Real | None = None
    aggression: Real | None = None

    def rules(self) -> Rules:
        if self.duration is None:
            yield problem("duration", says="the warm-up has no length", hint="set it, such as 30s")
        yield from check.check_percentage(("minimumPercent",), self.minimum_percent)
        if self.aggression is not None and self.aggression < 1:
            yield problem("aggression", says=f"{self.aggression:g} is less than 1", hint="use 1 for a linear warm-up")


class LoadBalancerSettings(Model):
    simple: SimpleLB | None = None
    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = planned()
    warmup_duration_secs: Duration | None = planned()
    warmup: WarmupConfiguration | None = planned()

    def rules(self) -> Rules:
        if self.simple is not None and self.consistent_hash is not None:
            yield problem(
                "consistentHash", says="simple and consistentHash exclude each other", hint="keep one of the two"
            )
        yield from check.check_duration(("warmupDurationSecs",), self.warmup_duration_secs, zero=True)


class TcpKeepalive(Model):
    probes: UInt = planned(0)
    time: Duration | None = None
    interval: Duration | None = planned()

    def rules(self) -> Rules:
        yield from check.check_duration(("time",), self.time, zero=True)
        yield from check.check_duration(("interval",), self.interval, zero=True)


class TCPSettings(Model):
    max_connections: Int = 0
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = planned()
    idle_timeout: Duration | None = planned()

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
    http2_max_requests: Int = 0
    max_requests_per_connection: Int = 0
    max_retries: Int = 0
    idle_timeout: Duration | None = None
    h2_upgrade_policy: H2UpgradePolicy = planned(H2UpgradePolicy.DEFAULT)
    use_client_protocol: Flag = planned(False)
    max_concurrent_streams: Int = planned(0)

    def rules(self) -> Rules:
        counts = ("http1_max_pending_requests", "http2_max_requests", "max_requests_per_connection", "max_retries")
        yield from _not_negative(self, *counts, "max_concurrent_streams")
        yield from check.check_duration(("idleTimeout",), self.idle_timeout, zero=True)
        if self.use_client_protocol and self.h2_upgrade_policy == H2UpgradePolicy.UPGRADE:
            says = "useClientProtocol keeps the client's protocol, UPGRADE changes it"
            yield problem("h2UpgradePolicy", says=says, hint="keep one of the two")


class ConnectionPoolSettings(Model):
    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None

    def rules(self) -> Rules:
        if self.tcp is None and self.http is None:
            yield problem(says="the connection pool says nothing", hint="set tcp, http or both")


class OutlierDetection(Model):
    """None where Istio's default applies (5 for `consecutive_5xx_errors`); 0 turns a detector off."""

    consecutive_errors: Int = 0
    split_external_local_origin_errors: Flag = planned(False)
    consecutive_local_origin_failures: UInt | None = planned()
    consecutive_gateway_errors: UInt | None = None
    consecutive_5xx_errors: UInt | None = None
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: Int = 0
    min_health_percent: Int = 0

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
    client_certificate: Text = ""
    private_key: Text = ""
    ca_certificates: Text = ""
    credential_name: Text = planned("")
    subject_alt_names: tuple[Text, ...] = ()
    sni: Text = ""
    insecure_skip_verify: Flag | None = None
    ca_crl: Text = planned("")

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
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None


class TunnelSettings(Model):
    protocol: Text = ""
    target_host: Text
    target_port: UInt

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


class RetryBudget(Model):
    percent: Real | None = None
    min_retry_concurrency: UInt = 0

    def rules(self) -> Rules:
        yield from check.check_percentage(("percent",), self.percent)


class TrafficPolicy(Model):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
    tunnel: TunnelSettings | None = planned()
    proxy_protocol: ProxyProtocol | None = planned()
    retry_budget: RetryBudget | None = planned()

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
    labels: Labels = EMPTY
    traffic_policy: TrafficPolicy | None = None

    def rules(self) -> Rules:
        if not check.is_dns_label(self.name):
            yield problem(
                "name", says=f"{self.name!r} is not a subset's name", hint="use lower-case letters, digits, dashes"
            )
        yield from check.check_labels(("labels",), self.labels)


class WorkloadSelector(Model):
    match_labels: Labels = EMPTY

    def rules(self) -> Rules:
        yield from check.check_labels(("matchLabels",), self.match_labels)


class DestinationRule(Model):
    """The spec. Subset policies override those of the rule; port-level ones override both."""

    host: Text
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[Text, ...] = ()
    workload_selector: WorkloadSelector | None = planned()

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
