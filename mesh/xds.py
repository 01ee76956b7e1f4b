"""What Envoy, the agent and discovery agree on for xDS over REST: type URLs, paths, timings, names of clusters.

How Envoy's REST subscription behaves (`http_subscription_impl.cc`, `rest_api_fetcher.cc`, seen in 1.40): it POSTs a
DiscoveryRequest as JSON to `rest_path`, one poll for each subscription (every EDS cluster, RDS name and SDS secret is
one). After each answer it waits `refresh_delay` plus up to as much again at random (milliseconds; a delay below 1 ms
divides by zero and kills Envoy). 200 is applied, 304 means unchanged; anything else, and a poll longer than
`request_timeout`, is a connection failure: logged, and polled again. A connection failure alone never ends the initial
fetch: with `initial_fetch_timeout` 0 a cluster or listener stays warming until an answer comes, which is what
make-before-break needs. A missing secret is different: `resources: []` lets its listener go active, refusing only the
connections of that filter chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mesh.wire import ResourceType

AGENT_CLUSTER = "xds-agent"
"""The agent's Unix socket in Envoy's static bootstrap: xDS and SDS. Needs circuit breakers well above the number of
subscriptions, since each holds a request (Envoy's default is 1,024 connections and requests)."""
PROMETHEUS_CLUSTER = "prometheus_stats"
AGENT_HTTP_CLUSTER = "agent"

HOLD_SECONDS = 30.0
"""How long a poll that has no news is held over a network (discovery, for a bare Envoy)."""
AGENT_HOLD_SECONDS = 600.0
"""The same on the agent's Unix socket, where nothing in between forgets connections. Each poll costs Envoy 1.5 ms of
CPU: with 1,000 subscriptions and 30 s that would be 5 % of a core for nothing."""
REQUEST_TIMEOUT_SECONDS = 900.0
"""When Envoy gives up on a poll: longer than it may be held."""
REFRESH_DELAY_SECONDS = 0.001
"""Envoy's pause between two polls; the least that it survives."""
ROUTES_REFRESH_DELAY_SECONDS = 0.05
"""The same for route configurations. A poll costs Envoy 1.5 ms of CPU, three quarters of what a change of routes costs
it, and the agent knows from Envoy's log that they are in force (docs/adr/0064): so the poll waits until every proxy of
this machine has its routes. A second change within this time (and as much again at random) waits for the rest of it."""

TYPE_URLS = {
    ResourceType.CLUSTERS: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    ResourceType.ENDPOINTS: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    ResourceType.LISTENERS: "type.googleapis.com/envoy.config.listener.v3.Listener",
    ResourceType.ROUTES: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    ResourceType.SECRETS: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}
"""Virtual hosts are not here: Envoy sees them only inside their route configuration."""

STATS_DELIMITER = ";"
"""Ends every cluster's and connection manager's stat name, so that the names' own dots do not confuse `STATS_TAGS`."""
STATS_TAGS = (
    {"tag_name": "cluster_name", "regex": r"^cluster\.((.+?);\.)"},
    {"tag_name": "http_conn_manager_prefix", "regex": r"^http\.((.+?);\.)"},
    {"tag_name": "tcp_prefix", "regex": r"^tcp\.((.+?);\.)"},
)
"""For the bootstrap's `stats_config.stats_tags`: they win over Envoy's own rules of the same tags."""


def rest_path(kind: ResourceType) -> str:
    """The path that Envoy polls for resources of `kind`."""
    return f"/v3/discovery:{kind.value}"


def config_source(kind: ResourceType | None = None) -> dict[str, Any]:
    """An Envoy `ConfigSource`: polled from the agent. Bootstraps use it for `lds_config` and `cds_config` too.

    `kind` matters for routes only, which are polled again a little later.
    """
    delay = ROUTES_REFRESH_DELAY_SECONDS if kind is ResourceType.ROUTES else REFRESH_DELAY_SECONDS
    return {
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": [AGENT_CLUSTER],
            "refresh_delay": f"{delay:g}s",
            "request_timeout": f"{REQUEST_TIMEOUT_SECONDS:g}s",
        },
        "initial_fetch_timeout": "0s",
        "resource_api_version": "V3",
    }


def assemble_routes(route: bytes, virtual_hosts: Iterable[bytes]) -> bytes:
    """The whole RouteConfiguration as JSON. `route` is its JSON object without virtual hosts (it has a name)."""
    return route[:-1] + b',"virtual_hosts":[' + b",".join(virtual_hosts) + b"]}"
