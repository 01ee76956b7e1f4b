"""Envoy's bootstrap: everything dynamic comes from the agent's socket. Pure.

Static are the way to the agent, the admin interface on loopback, and the statistics port that Prometheus scrapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesh import ports
from mesh.workloads import PEER_METADATA, TRACED_AS, Workload
from mesh.xds import AGENT_CLUSTER, PROMETHEUS_CLUSTER, STATS_TAGS, config_source

MANY = 1_000_000
EVICTION = "1800s"
"""Istio's metrics that no request has touched from one such moment to the next are forgotten: peers and values of
labels that are gone give their memory back. Prometheus takes what comes back for a counter that began again."""
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def bootstrap(
    *,
    namespace: str,
    pod: str,
    ips: Sequence[str],
    workload: Workload,
    socket: str,
    admin_port: int = ports.ENVOY_ADMIN,
    stats_port: int = ports.ENVOY_STATS,
    buckets: Mapping[str, Sequence[float]] | None = None,
    runtime: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The bootstrap of one sidecar or gateway, as the JSON that `envoy -c` reads. The node's id is of Istio's form.

    `ips` are the pod's addresses, the first of them its own in the node's id; `buckets` are bounds of histograms by the
    prefix of their names, `runtime` Envoy's runtime flags. `workload` is what telemetry calls
    the pod. (Istio's proxy calls its metrics `istiocustom.istio_...`, and people write buckets for that.)
    """
    stats: dict[str, Any] = {"use_all_default_tags": True, "stats_tags": list(STATS_TAGS)}
    if buckets:
        stats["histogram_bucket_settings"] = [
            {"match": {"prefix": prefix.replace("istiocustom", "istio", 1)}, "buckets": list(bounds)}
            for prefix, bounds in buckets.items()
        ]
    layers = {"layers": [{"name": "proxyConfig", "static_layer": dict(runtime)}]} if runtime else None
    return {
        **({"layered_runtime": layers} if layers else {}),
        "node": {
            "id": f"sidecar~{ips[0]}~{pod}.{namespace}~{namespace}.svc.cluster.local",
            "cluster": traced_service(workload),
            "metadata": {PEER_METADATA: workload.packed},
        },
        "admin": {"address": _address("127.0.0.1", admin_port)},
        "dynamic_resources": {"cds_config": config_source(), "lds_config": config_source()},
        "stats_config": stats,
        "stats_eviction_interval": EVICTION,
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
            "listeners": [_stats_listener(any(":" in ip for ip in ips), stats_port)],
        },
    }


def traced_service(workload: Workload) -> str:
    """The name of the service of a workload's spans, as Istio's `tracingServiceName` has it by default."""
    return f"{workload.service}.{workload.namespace}"


def environment(workload: Workload, given: Mapping[str, str]) -> dict[str, str]:
    """Envoy's environment: the one `given` to the agent, with what OpenTelemetry says in it of the source of spans, and
    what Istio's tags of spans say of the workload (mesh/workloads.py).

    Source: https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
    """
    said = f"service.name={traced_service(workload)},k8s.namespace.name={workload.namespace}"
    own = given.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {
        **given,
        **dict(zip(TRACED_AS.values(), (workload.namespace, workload.service, workload.revision), strict=True)),
        "OTEL_RESOURCE_ATTRIBUTES": f"{said},{own}" if own else said,
    }


def _static_cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _stats_listener(both: bool, port: int) -> dict[str, Any]:
    """`both`: by IPv6 as well as by IPv4."""
    route = {"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": PROMETHEUS_CLUSTER}}
    manager = {
        "@type": _HCM,
        "stat_prefix": "stats",
        "route_config": {"virtual_hosts": [{"name": "stats", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    return {
        "name": "stats",
        "address": _both_families(port) if both else _address("0.0.0.0", port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _both_families(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
