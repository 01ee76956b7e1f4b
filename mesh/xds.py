"""What the agent and Envoy say to each other over the Unix socket: REST xDS and SDS (Envoy 1.40, API v3).

Whoever renders a resource that fetches another one (EDS in a cluster, RDS in a listener, SDS in a TLS context) puts
`config_source()` there. Names of secrets: `default` (chain and key of this workload), `ROOTCA` (the trust bundle),
`kubernetes://<credential>` (a gateway's certificate).
"""

from __future__ import annotations

from typing import Any

from mesh.wire import ResourceType

AGENT_CLUSTER = "xds-agent"
HOLD_SECONDS = 30.0
"""How long the agent holds a poll that has nothing new before it answers 304."""

REQUEST_TIMEOUT = "45s"
"""Envoy's default is 1 s, which would end every held poll."""

REFRESH_DELAY = "0.001s"
"""Pause between an answer and the next poll. Never 0: Envoy 1.40 takes a random number modulo it and crashes."""

WORKLOAD_SECRET = "default"  # noqa: S105  # a name
ROOT_SECRET = "ROOTCA"  # noqa: S105
CREDENTIAL_PREFIX = "kubernetes://"

TYPE_URLS = {
    ResourceType.CLUSTERS: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    ResourceType.ENDPOINTS: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    ResourceType.LISTENERS: "type.googleapis.com/envoy.config.listener.v3.Listener",
    ResourceType.ROUTES: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    ResourceType.SECRETS: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}
"""The agent puts `@type` on a resource that has none; a virtual host is no resource of Envoy's and never has one."""


def config_source() -> dict[str, Any]:
    """The ConfigSource of everything that a sidecar fetches. A new value each time: callers may change it."""
    return {
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": [AGENT_CLUSTER],
            "refresh_delay": REFRESH_DELAY,
            "request_timeout": REQUEST_TIMEOUT,
        },
    }
