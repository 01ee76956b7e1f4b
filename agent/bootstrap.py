"""Envoy's bootstrap: everything dynamic comes from the agent's socket. Pure.

Static are the way to the agent, the admin interface on loopback, and the statistics port that Prometheus scrapes.
"""

from __future__ import annotations

from typing import Any

from mesh import ports
from mesh.xds import AGENT_CLUSTER, PROMETHEUS_CLUSTER, STATS_TAGS, config_source

MANY = 1_000_000
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def bootstrap(
    *,
    namespace: str,
    pod: str,
    ip: str,
    service_account: str,
    socket: str,
    admin_port: int = ports.ENVOY_ADMIN,
    stats_port: int = ports.ENVOY_STATS,
) -> dict[str, Any]:
    """The bootstrap of one sidecar or gateway, as the JSON that `envoy -c` reads. The node's id is of Istio's form."""
    return {
        "node": {
            "id": f"sidecar~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local",
            "cluster": f"{service_account}.{namespace}",
        },
        "admin": {"address": _address("127.0.0.1", admin_port)},
        "dynamic_resources": {"cds_config": config_source(), "lds_config": config_source()},
        "stats_config": {"use_all_default_tags": True, "stats_tags": list(STATS_TAGS)},
        "static_resources": {
            "clusters": [
                {
                    **_static_cluster(AGENT_CLUSTER, {"pipe": {"path": socket}}),
                    # One connection and one request is held for each subscription: the default of 1,024 would end it.
                    "circuit_breakers": {
                        "thresholds": [{"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}]
                    },
                },
                _static_cluster(PROMETHEUS_CLUSTER, _address("127.0.0.1", admin_port)),
            ],
            "listeners": [_stats_listener("::" if ":" in ip else "0.0.0.0", stats_port)],
        },
    }


def _static_cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _stats_listener(address: str, port: int) -> dict[str, Any]:
    route = {"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": PROMETHEUS_CLUSTER}}
    manager = {
        "@type": _HCM,
        "stat_prefix": "stats",
        "route_config": {"virtual_hosts": [{"name": "stats", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    return {
        "name": "stats",
        "address": _address(address, port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
