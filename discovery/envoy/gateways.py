"""The ports that a gateway opens."""

from __future__ import annotations

from discovery.envoy import network, tls
from discovery.envoy.context import Context
from discovery.envoy.http import Side, connection_manager
from discovery.envoy.metrics import Reporter
from discovery.envoy.reports import http_reports, refused_log, tcp_reports
from discovery.envoy.values import WILDCARD, Json
from discovery.plan.model import GatewayListener, GatewayServer
from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS

_HANDSHAKE_TIMEOUT = "15s"
# From Envoy's page "Configuring Envoy as an edge proxy": clients that read slowly must not fill the memory.
_BUFFER_BYTES = 32768


def gateway_listener(listener: GatewayListener, context: Context) -> Json:
    """A bound `Listener`: one filter chain for each server, chosen by SNI where it speaks TLS."""
    any_tls = any(server.tls is not None for server in listener.servers)
    rendered: Json = {
        "@type": TYPE_URLS[ResourceType.LISTENERS],
        "name": listener.name,
        **context.address(WILDCARD, listener.port),
        "traffic_direction": "OUTBOUND",
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            _chain(listener, server, f"{listener.name}/{number}", any_tls, context)
            for number, server in enumerate(listener.servers)
        ],
        **refused_log(context, Reporter.SOURCE),
    }
    if any_tls:
        rendered["listener_filters"] = [network.tls_inspector()]
    return rendered


def _chain(listener: GatewayListener, server: GatewayServer, name: str, any_tls: bool, context: Context) -> Json:
    stats = f"outbound_{WILDCARD}_{listener.port}"
    http = server.protocol.is_http and bool(server.route_table)
    if http:
        accept = connection_manager(Side.GATEWAY, stats, server.route_table, http_reports(context, Reporter.SOURCE))
    else:
        accept = network.tcp_proxy(server.targets, stats, tcp_reports(context, Reporter.SOURCE))
    chain: Json = {"name": name, "filters": [accept]}
    match: Json = {}
    if server.tls is not None:
        # Envoy spells "any name" by saying none.
        names = [sni for sni in server.sni if sni != "*"]
        if names and len(names) == len(server.sni):
            match["server_names"] = names
        else:
            match["transport_protocol"] = "tls"
        if not server.tls.passthrough:
            chain["transport_socket"] = tls.gateway_server(server.tls, context.trust_domains, http=http)
            chain["transport_socket_connect_timeout"] = _HANDSHAKE_TIMEOUT
    elif any_tls:
        match["transport_protocol"] = "raw_buffer"
    if match:
        chain["filter_chain_match"] = match
    return chain
