"""The HTTP connection manager, and the table of HTTP filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from discovery.envoy.metrics import REMEMBER_PEER
from discovery.envoy.routes import FAULT_FILTER, FAULT_TYPE
from discovery.envoy.values import Json
from mesh.wire import ResourceType
from mesh.xds import STATS_DELIMITER, config_source


class Side(Enum):
    """Where a connection manager stands."""

    OUTBOUND = auto()
    INBOUND = auto()
    GATEWAY = auto()


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """A filter and where it stands. What it does for one route comes by `typed_per_filter_config` of that route."""

    name: str
    type: str
    sides: frozenset[Side]
    config: Mapping[str, Any] = field(default_factory=dict)


_CALLERS = frozenset({Side.OUTBOUND, Side.GATEWAY})
_ALL = frozenset(Side)

HTTP_FILTERS = (
    HttpFilter(
        "envoy.filters.http.set_filter_state",
        "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
        frozenset({Side.INBOUND}),
        REMEMBER_PEER,
    ),
    HttpFilter(FAULT_FILTER, FAULT_TYPE, _CALLERS),
    HttpFilter("envoy.filters.http.router", "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", _ALL),
)
"""Every HTTP filter, in the order in which requests pass them. The router is last."""

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_SERVER_NAME = "istio-envoy"

# Inside the mesh, private addresses are internal: Envoy's x-envoy-* request headers (a caller's own timeout or retries)
# count. Envoy's default is that no address is. At a gateway that stays so: what clients send of them is removed.
_INTERNAL = {
    "cidr_ranges": [
        {"address_prefix": "10.0.0.0", "prefix_len": 8},
        {"address_prefix": "172.16.0.0", "prefix_len": 12},
        {"address_prefix": "192.168.0.0", "prefix_len": 16},
        {"address_prefix": "127.0.0.0", "prefix_len": 8},
        {"address_prefix": "fc00::", "prefix_len": 7},
        {"address_prefix": "::1", "prefix_len": 128},
    ]
}

_SIDES: dict[Side, Json] = {
    Side.OUTBOUND: {"use_remote_address": False, "internal_address_config": _INTERNAL},
    # Envoy removes x-forwarded-client-cert from a request that did not come by mutual TLS, so nobody can forge it.
    Side.INBOUND: {
        "use_remote_address": False,
        "internal_address_config": _INTERNAL,
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
    },
    # Limits for untrusted clients, from Envoy's page "Configuring Envoy as an edge proxy".
    Side.GATEWAY: {
        "use_remote_address": True,
        "internal_address_config": {},
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
    },
}


def filters_of(side: Side) -> tuple[HttpFilter, ...]:
    """The filters that stand on `side`, in order."""
    return tuple(each for each in HTTP_FILTERS if side in each.sides)


def connection_manager(side: Side, stat_prefix: str, route_table: str, reports: Json) -> Json:
    """The network filter that speaks HTTP/1.1, HTTP/2 (by ALPN or by its preface) and WebSocket, with routes by RDS.
    `reports`: its fields for logs, metrics and traces (`reports.py`)."""
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _MANAGER,
            "stat_prefix": stat_prefix + STATS_DELIMITER,
            "server_name": _SERVER_NAME,
            "rds": {"config_source": config_source(ResourceType.ROUTES), "route_config_name": route_table},
            "http_filters": [
                {"name": each.name, "typed_config": {"@type": each.type, **each.config}} for each in filters_of(side)
            ],
            "normalize_path": True,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            # Streams may be silent for long (gRPC, WebSocket): a route's timeout is the limit, not silence.
            "stream_idle_timeout": "0s",
            **reports,
            **_SIDES[side],
        },
    }
