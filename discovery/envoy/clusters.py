"""Destinations as Envoy clusters."""

from __future__ import annotations

from discovery.envoy import tls
from discovery.envoy.values import Json, bind_source, seconds, socket_address
from discovery.plan.model import (
    Balance,
    ConnectionLimits,
    Destination,
    OutlierDetection,
    Protocol,
    Resolution,
    TlsMode,
)
from mesh.wire import ResourceType
from mesh.workloads import METADATA, PEER_HEADER, PEER_METADATA, SEPARATOR
from mesh.xds import STATS_DELIMITER, TYPE_URLS, config_source

PASSTHROUGH = "PassthroughCluster"
BLACKHOLE = "BlackHoleCluster"
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"

BUILT_IN = (
    Destination(BLACKHOLE, Resolution.NOWHERE),
    Destination(INBOUND_PASSTHROUGH, Resolution.ORIGINAL),
    Destination(PASSTHROUGH, Resolution.ORIGINAL),
)
"""Listeners and fall-through routes refer to these; a plan that names them itself wins."""

_UNLIMITED = 0xFFFFFFFF
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_POLICIES = {
    Balance.LEAST_REQUEST: "LEAST_REQUEST",
    Balance.ROUND_ROBIN: "ROUND_ROBIN",
    Balance.RANDOM: "RANDOM",
    Balance.PASSTHROUGH: "CLUSTER_PROVIDED",
    Balance.HASH: "RING_HASH",
}
# Every address of the name is an endpoint of its own. (The cluster types STRICT_DNS and LOGICAL_DNS are deprecated.)
_DNS = {
    "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
    "dns_lookup_family": "V4_PREFERRED",
    "dns_refresh_rate": "60s",
    "respect_dns_ttl": True,
}
# Connections of an original-destination cluster to addresses that nobody asks for any more are dropped after this.
_CLEANUP = "60s"


_HTTP_FILTERS = "type.googleapis.com/envoy.extensions.filters.http."
_OWN_PEER = f"xds.node.metadata['{PEER_METADATA}']"
# Only an endpoint that takes mesh TLS learns who asks: what it is told must not leave the mesh.
_PEER_IN_MESH = f"'envoy.transport_socket_match' in xds.upstream_host_metadata.filter_metadata ? {_OWN_PEER} : ''"


def cluster(destination: Destination, trust_domains: tuple[str, ...]) -> Json:
    """A `Cluster`. A destination that balances by PASSTHROUGH goes to where the caller was going, whatever its
    endpoints are. Limits that are not set are Istio's: none."""
    rendered: Json = {
        "@type": TYPE_URLS[ResourceType.CLUSTERS],
        "name": destination.name,
        "alt_stat_name": destination.name + STATS_DELIMITER,
        **_metadata(destination),
        "connect_timeout": seconds(destination.limits.connect_timeout),
        "circuit_breakers": {"thresholds": [_thresholds(destination.limits)]},
        **_discovery(destination),
    }
    options = _http_options(destination)
    if options is not None:
        rendered["typed_extension_protocol_options"] = {_HTTP_OPTIONS: options}
    if destination.limits.tcp_keepalive_seconds is not None:
        keepalive = max(round(destination.limits.tcp_keepalive_seconds), 1)
        rendered["upstream_connection_options"] = {"tcp_keepalive": {"keepalive_time": keepalive}}
    if destination.outliers is not None:
        rendered["outlier_detection"] = _outliers(destination.outliers)
        rendered["common_lb_config"] = {
            "healthy_panic_threshold": {"value": destination.outliers.min_health_percent or 0}
        }
    rendered.update(_transport(destination, trust_domains))
    return rendered


def _metadata(destination: Destination) -> Json:
    """What metrics call the service; where there is none, the destination's own name, as Istio does."""
    namespace, _, name = destination.service.partition("/")
    if not name:
        if destination.resolution not in (Resolution.ORIGINAL, Resolution.NOWHERE):
            return {}
        name = destination.name
    service = SEPARATOR.join((destination.host, name, namespace))
    return {"metadata": {"filter_metadata": {METADATA: {"service": service}}}}


def _to_original(destination: Destination) -> bool:
    return destination.resolution is Resolution.ORIGINAL or (
        destination.resolution is Resolution.ENDPOINTS and destination.balance is Balance.PASSTHROUGH
    )


def by_endpoints(destination: Destination) -> bool:
    """Whether Envoy asks for an endpoint set of this destination."""
    return destination.resolution is Resolution.ENDPOINTS and destination.balance is not Balance.PASSTHROUGH


def _discovery(destination: Destination) -> Json:
    if _to_original(destination):
        rendered: Json = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "cleanup_interval": _CLEANUP}
        if destination.name == INBOUND_PASSTHROUGH:
            rendered["upstream_bind_config"] = bind_source()
        return rendered
    match destination.resolution:
        case Resolution.ENDPOINTS:
            return {"type": "EDS", "eds_cluster_config": {"eds_config": config_source()}, **_balance(destination)}
        case Resolution.DNS:
            return {
                "cluster_type": {"name": "envoy.clusters.dns", "typed_config": _DNS},
                "load_assignment": _single(destination),
                **_balance(destination),
            }
        case Resolution.LOCAL:
            return {"type": "STATIC", "load_assignment": _single(destination), "upstream_bind_config": bind_source()}
        case _:
            return {"type": "STATIC"}


def _single(destination: Destination) -> Json:
    address = socket_address(destination.address, destination.port)
    return {
        "cluster_name": destination.name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }


def _balance(destination: Destination) -> Json:
    rendered: Json = {"lb_policy": _POLICIES[destination.balance]}
    if destination.balance is Balance.PASSTHROUGH:
        rendered["lb_policy"] = "LEAST_REQUEST"
    elif destination.balance is Balance.HASH:
        rendered["ring_hash_lb_config"] = {"minimum_ring_size": 1024}
    return rendered


def _thresholds(limits: ConnectionLimits) -> Json:
    def limit(value: int | None) -> int:
        return _UNLIMITED if value is None else value

    return {
        "max_connections": limit(limits.max_connections),
        "max_pending_requests": limit(limits.max_pending_requests),
        "max_requests": limit(limits.max_requests),
        "max_retries": limit(limits.max_retries),
        "track_remaining": True,
    }


def _http_options(destination: Destination) -> Json | None:
    """`HttpProtocolOptions`. Where nothing is known of the destination, what came in goes out: HTTP/1.1 or HTTP/2."""
    if destination.resolution is Resolution.NOWHERE:
        return None
    unknown = destination.resolution is Resolution.ORIGINAL and not destination.host
    if not unknown and not destination.protocol.is_http:
        return None
    options: Json = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}"}
    if unknown:
        options["use_downstream_protocol_config"] = {"http_protocol_options": {}, "http2_protocol_options": {}}
    elif destination.protocol is Protocol.HTTP2:
        options["explicit_http_config"] = {"http2_protocol_options": {}}
    else:
        options["explicit_http_config"] = {"http_protocol_options": {}}
    common: Json = {}
    if destination.limits.idle_timeout is not None:
        common["idle_timeout"] = seconds(destination.limits.idle_timeout)
    if destination.limits.max_requests_per_connection:
        common["max_requests_per_connection"] = destination.limits.max_requests_per_connection
    if common:
        options["common_http_protocol_options"] = common
    by_host = tls.auto_host(destination, destination.tls) if destination.tls else None
    if by_host is not None:
        options["upstream_http_protocol_options"] = by_host
    if destination.tls is not None and destination.tls.mode is TlsMode.ISTIO_MUTUAL:
        options["http_filters"] = _introduction(_PEER_IN_MESH if destination.tls.automatic else _OWN_PEER)
    return options


def _introduction(peer: str) -> list[Json]:
    """The filters of requests on their way to an endpoint that tell its sidecar who asks. `peer`: CEL."""
    header = {"header": {"key": PEER_HEADER, "value": f"%CEL({peer})%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    mutations = {"request_mutations": [{"remove": PEER_HEADER}, {"append": header}]}
    return [
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": {"@type": _HTTP_FILTERS + "header_mutation.v3.HeaderMutation", "mutations": mutations},
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": _HTTP_FILTERS + "upstream_codec.v3.UpstreamCodec"},
        },
    ]


def _outliers(outliers: OutlierDetection) -> Json:
    """Istio's rules: success rates never eject; a count of 0 turns that detector off."""
    rendered: Json = {"enforcing_success_rate": 0}
    if outliers.consecutive_5xx is not None:
        rendered["consecutive_5xx"] = max(outliers.consecutive_5xx, 1)
        rendered["enforcing_consecutive_5xx"] = 100 if outliers.consecutive_5xx else 0
    if outliers.consecutive_gateway_errors is not None:
        rendered["consecutive_gateway_failure"] = max(outliers.consecutive_gateway_errors, 1)
        rendered["enforcing_consecutive_gateway_failure"] = 100 if outliers.consecutive_gateway_errors else 0
    if outliers.interval:
        rendered["interval"] = seconds(outliers.interval)
    if outliers.base_ejection_time:
        rendered["base_ejection_time"] = seconds(outliers.base_ejection_time)
        # Envoy refuses a base above its maximum of 300 s.
        rendered["max_ejection_time"] = seconds(max(outliers.base_ejection_time, 300.0))
    if outliers.max_ejection_percent is not None:
        rendered["max_ejection_percent"] = outliers.max_ejection_percent
    return rendered


def _transport(destination: Destination, trust_domains: tuple[str, ...]) -> Json:
    settings = destination.tls
    if settings is None or settings.mode is TlsMode.DISABLE:
        return {}
    if settings.mode is not TlsMode.ISTIO_MUTUAL:
        return {"transport_socket": tls.plain_client(destination, settings)}
    if not settings.automatic:
        return {"transport_socket": tls.mesh_client(destination, settings, trust_domains)}
    if _to_original(destination):
        return {}  # no endpoint says that it takes mesh TLS
    return {
        "transport_socket_matches": [
            {
                "name": "tlsMode-istio",
                "match": {"tlsMode": "istio"},
                "transport_socket": tls.mesh_client(destination, settings, trust_domains),
            },
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": tls.RAW},
        ]
    }
