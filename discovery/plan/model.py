"""The Plan: what one proxy should do, in the mesh's own words.

Every value is frozen, compares by value and holds tuples only, so that plans can be compared, memoised and shown.
`discovery.plan` makes it from a Snapshot; `discovery.envoy` renders it; status and explain read it. Nothing here is
Envoy's: no filter, no protobuf name. Durations are seconds. Names of destinations and listeners are Istio's, since
dashboards and people know them (`outbound|9080|v1|reviews.default.svc.cluster.local`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from discovery.plan.origins import Origin, Problem
from discovery.plan.reporting import NOTHING, Reporting
from mesh.identity import Identity
from mesh.workloads import Workload


class Role(StrEnum):
    SIDECAR = "sidecar"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Proxy:
    """Who the plan is for. `labels` are the pod's, as sorted pairs."""

    namespace: str
    pod: str
    ip: str
    identity: Identity
    role: Role
    labels: tuple[tuple[str, str], ...]
    other_ips: tuple[str, ...] = ()
    """Of the other IP family."""
    service: str = ""
    """The canonical service: what telemetry calls this workload's service."""


class Protocol(StrEnum):
    """What is spoken on a port. `TLS` is passed through by SNI; `HTTP2` includes gRPC."""

    HTTP = "http"
    HTTP2 = "http2"
    TCP = "tcp"
    TLS = "tls"

    @property
    def is_http(self) -> bool:
        return self in (Protocol.HTTP, Protocol.HTTP2)


# ---- destinations: where requests may go


class TlsMode(StrEnum):
    """How a connection to an endpoint is protected (Istio's ClientTLSSettings)."""

    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """`automatic`: mesh mutual TLS to those endpoints that take it, plain text to the others."""

    mode: TlsMode
    automatic: bool = False
    sni: str = ""
    server_identities: tuple[str, ...] = ()
    """SPIFFE IDs of which the server must hold one (mesh TLS). Empty: any of the trust domain."""
    subject_alt_names: tuple[str, ...] = ()
    ca_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""
    skip_verification: bool = False


class Balance(StrEnum):
    LEAST_REQUEST = "LEAST_REQUEST"
    ROUND_ROBIN = "ROUND_ROBIN"
    RANDOM = "RANDOM"
    PASSTHROUGH = "PASSTHROUGH"
    HASH = "HASH"


@dataclass(frozen=True, slots=True)
class HashBy:
    """Exactly one is set. `cookie_ttl` 0 means a session cookie."""

    header: str = ""
    cookie: str = ""
    cookie_path: str = ""
    cookie_ttl: float | None = None
    source_ip: bool = False
    query_parameter: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Istio's connectionPool; None is Envoy's default."""

    connect_timeout: float = 10.0
    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    idle_timeout: float | None = None
    tcp_keepalive_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """Istio's outlierDetection; None is Envoy's default."""

    consecutive_5xx: int | None = None
    consecutive_gateway_errors: int | None = None
    interval: float | None = None
    base_ejection_time: float | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None


class Resolution(StrEnum):
    """ENDPOINTS: by endpoint set. ORIGINAL: to where the caller was going. DNS: a host name. LOCAL: the app in this
    pod. NOWHERE: refuses."""

    ENDPOINTS = "endpoints"
    ORIGINAL = "original"
    DNS = "dns"
    LOCAL = "local"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Destination:
    """`address`/`port` only for DNS and LOCAL. Names: `outbound|<port>|<subset>|<host>`, `inbound|<port>||`,
    `PassthroughCluster`, `BlackHoleCluster`, `InboundPassthroughCluster`."""

    name: str
    resolution: Resolution
    protocol: Protocol = Protocol.TCP
    host: str = ""
    address: str = ""
    port: int = 0
    tls: ClientTls | None = None
    balance: Balance = Balance.LEAST_REQUEST
    hash_by: HashBy | None = None
    limits: ConnectionLimits = ConnectionLimits()
    outliers: OutlierDetection | None = None
    origins: tuple[Origin, ...] = ()
    service: str = ""
    """`namespace/name` of the service that `host` is."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """`mesh_tls`: takes mesh mutual TLS (has a sidecar, and its policy for that port is not DISABLE)."""

    address: str
    port: int
    mesh_tls: bool
    identity: str = ""
    workload: str = ""
    """`namespace/pod`, for people; empty where the address is no pod."""
    also: tuple[str, ...] = ()
    """Its addresses of the other IP family, tried when the first does not answer."""
    priority: int = 0
    """The lowest that answers is asked: 0, 1, ... without gaps."""
    reported: Workload | None = None
    """What metrics call it."""


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """`name` is its destination's. Only ready endpoints, sorted."""

    name: str
    endpoints: tuple[Endpoint, ...]


# ---- routes: which request goes to which destination


class MatchKind(StrEnum):
    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class TextMatch:
    kind: MatchKind
    value: str = ""
    ignore_case: bool = False
    invert: bool = False


@dataclass(frozen=True, slots=True)
class NamedMatch:
    """A header (`:method`, `:authority`, `:scheme` included) or a query parameter."""

    name: str
    match: TextMatch


@dataclass(frozen=True, slots=True)
class RequestMatch:
    path: TextMatch = TextMatch(MatchKind.PREFIX, "/")
    headers: tuple[NamedMatch, ...] = ()
    query: tuple[NamedMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One weighted destination, by its name. Weights need no particular sum."""

    destination: str
    weight: int = 1
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`path` replaces what the match's prefix (or the whole exact path) matched; empty keeps."""

    path: str = ""
    authority: str = ""


@dataclass(frozen=True, slots=True)
class Retries:
    attempts: int
    on: str
    per_try_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    scheme: str = ""
    authority: str = ""
    path: str = ""
    port: int = 0
    status: int = 301


@dataclass(frozen=True, slots=True)
class DirectResponse:
    status: int
    body: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Percentages from 0 to 100. `abort_grpc_status` is a status by name (`UNAVAILABLE`), instead of `abort_status`."""

    delay: float | None = None
    delay_percent: float = 0.0
    abort_status: int | None = None
    abort_percent: float = 0.0
    abort_grpc_status: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Exactly one of `targets`, `redirect`, `response`. `timeout` None: no limit. The first match wins."""

    name: str
    match: RequestMatch
    targets: tuple[Target, ...] = ()
    redirect: Redirect | None = None
    response: DirectResponse | None = None
    rewrite: Rewrite | None = None
    timeout: float | None = None
    retries: Retries | None = None
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
    fault: Fault | None = None
    hash_by: HashBy | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """`domains`: every spelling that reaches it (with and without port, short names, cluster IP)."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    require_tls: bool = False
    """Answer plain-text requests with a redirect to https (a gateway's httpsRedirect)."""
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteTable:
    """`name` is what listeners refer to: the port for outbound, `inbound|<port>||` for inbound, `http.<port>` and
    `https.<port>.<name>.<gateway>.<namespace>` for gateways (Istio's names)."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]


# ---- listeners: what is accepted


@dataclass(frozen=True, slots=True)
class OutboundListener:
    """Intercepted connections to `address`:`port`. HTTP: by `route_table`; else by `targets` in proportion.
    `address` 0.0.0.0 means every address not taken by a more specific listener of that port."""

    name: str
    address: str
    port: int
    protocol: Protocol
    route_table: str = ""
    targets: tuple[Target, ...] = ()
    origins: tuple[Origin, ...] = ()


class PeerTls(StrEnum):
    """What a server takes: only mutual TLS, both, or only plain text (Istio's PeerAuthentication)."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


@dataclass(frozen=True, slots=True)
class InboundPort:
    """Connections to this pod's `port`, passed to `destination` (127.0.0.1 or the pod's own address)."""

    port: int
    protocol: Protocol
    peer_tls: PeerTls
    destination: str
    route_table: str = ""
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """`credential`: name of the Secret in the gateway's namespace. `passthrough`: not ended here, matched by SNI."""

    credential: str = ""
    certificate_file: str = ""
    private_key_file: str = ""
    ca_file: str = ""
    client_certificates: bool = False
    passthrough: bool = False
    mesh: bool = False
    """Serve with the gateway's own SVID and demand the client's (mode ISTIO_MUTUAL)."""
    min_version: str = ""
    max_version: str = ""


@dataclass(frozen=True, slots=True)
class GatewayServer:
    """One filter on a gateway port: `sni` empty for plain text. HTTP: `route_table`; else `targets`."""

    sni: tuple[str, ...] = ()
    tls: GatewayTls | None = None
    protocol: Protocol = Protocol.HTTP
    route_table: str = ""
    targets: tuple[Target, ...] = ()
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayListener:
    """A port that the gateway opens. `port` is where the gateway's pod listens (the Service's target port)."""

    name: str
    port: int
    servers: tuple[GatewayServer, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Some elements of a plan. The same object is in many plans, or belongs to one."""

    outbound: tuple[OutboundListener, ...] = ()
    route_tables: tuple[RouteTable, ...] = ()
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. Everything is sorted by name (routes: in order of precedence)."""

    proxy: Proxy
    outbound: tuple[OutboundListener, ...]
    inbound: tuple[InboundPort, ...]
    inbound_default: PeerTls
    """For ports of this pod that no service and no container port names."""
    gateways: tuple[GatewayListener, ...]
    route_tables: tuple[RouteTable, ...]
    destinations: tuple[Destination, ...]
    endpoints: tuple[EndpointSet, ...]
    allow_any: bool
    """Unknown outbound destinations are passed through (ALLOW_ANY) or refused (REGISTRY_ONLY)."""
    reporting: Reporting = NOTHING
    other_trust_domains: tuple[str, ...] = ()
    """Whose workloads are let in beside the mesh's own: its aliases, and those with roots of their own."""
    problems: tuple[Problem, ...] = ()
    shared: Layer | None = field(default=None, compare=False, repr=False)
    own: Layer = field(default=Layer(), compare=False, repr=False)
    """Where `shared` is there, `outbound`, `route_tables` and `destinations` are these two, own ones before shared ones
    of the same name: what is made of a plan can be made of what many proxies share only once."""
