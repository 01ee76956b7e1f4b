"""Everything that other pods send to this one: the listener `virtualInbound`."""

from __future__ import annotations

from collections.abc import Callable

from discovery.envoy import network, tls
from discovery.envoy.clusters import BLACKHOLE, INBOUND_PASSTHROUGH
from discovery.envoy.context import Context
from discovery.envoy.http import Side, connection_manager
from discovery.envoy.metrics import Reporter
from discovery.envoy.reports import http_reports, refused_log, tcp_reports, unmeasured
from discovery.envoy.values import WILDCARD, Json
from discovery.plan.model import InboundPort, PeerTls
from mesh import ports
from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS

VIRTUAL_INBOUND = "virtualInbound"

# A client that says nothing for so long speaks plain text, or waits for the server to speak.
_INSPECTION_TIMEOUT = "5s"
_HANDSHAKE_TIMEOUT = "15s"


def virtual_inbound(inbound: tuple[InboundPort, ...], default: PeerTls, context: Context) -> Json:
    """The `Listener` on 15006. Envoy picks a filter chain by the port that the client meant, and never falls back from
    a port's own chains to the catch-all: a plain connection to a STRICT port is closed."""
    chains = [_guard(context)]
    for port in inbound:
        chains.extend(_chains(port, context))
    chains.extend(_catch_all(default, context))
    return {
        "@type": TYPE_URLS[ResourceType.LISTENERS],
        "name": VIRTUAL_INBOUND,
        **context.address(WILDCARD, ports.INBOUND),
        "traffic_direction": "INBOUND",
        "listener_filters": [network.ORIGINAL_DESTINATION, *_inspector(inbound, default)],
        "listener_filters_timeout": _INSPECTION_TIMEOUT,
        "continue_on_listener_filters_timeout": True,
        "filter_chains": chains,
        **refused_log(context, Reporter.DESTINATION),
    }


def _inspector(inbound: tuple[InboundPort, ...], default: PeerTls) -> list[Json]:
    tls_ports = [port.port for port in inbound if port.peer_tls is not PeerTls.DISABLE]
    plain_ports = [port.port for port in inbound if port.peer_tls is PeerTls.DISABLE]
    if default is not PeerTls.DISABLE:
        return [network.tls_inspector(except_ports=plain_ports)]
    return [network.tls_inspector(everywhere=False, except_ports=tls_ports)] if tls_ports else []


def _guard(context: Context) -> Json:
    """Who connects to 15006 itself gets nowhere: passing it on would come back here for ever."""
    return {
        "name": "virtualInbound-blackhole",
        "filter_chain_match": {"destination_port": ports.INBOUND},
        "filters": [network.to_cluster(BLACKHOLE, BLACKHOLE, unmeasured(context, Reporter.DESTINATION))],
    }


def _chains(port: InboundPort, context: Context) -> list[Json]:
    stats = f"inbound_{WILDCARD}_{port.port}"
    http = port.protocol.is_http and bool(port.route_table)

    def accept(reporter: Reporter) -> Json:
        if http:
            return connection_manager(Side.INBOUND, stats, port.route_table, http_reports(context, reporter))
        return network.to_cluster(port.destination, stats, _tcp(context, reporter))

    return _by_peer_tls(
        f"{WILDCARD}_{port.port}", {"destination_port": port.port}, port.peer_tls, accept, context, http
    )


def _catch_all(default: PeerTls, context: Context) -> list[Json]:
    """Ports that nobody declared: bytes, whatever they say."""

    def accept(reporter: Reporter) -> Json:
        return network.to_cluster(INBOUND_PASSTHROUGH, INBOUND_PASSTHROUGH, _tcp(context, reporter))

    return _by_peer_tls("virtualInbound-catchall", {}, default, accept, context, http=False)


def _tcp(context: Context, reporter: Reporter) -> Json:
    """The app hears of no peer before its certificate is seen to be good, and no metric counts one before."""
    reports = tcp_reports(context, reporter)
    if reporter is Reporter.PLAIN:
        return reports
    return {**reports, "upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE", "max_early_data_bytes": 0}


def _by_peer_tls(
    name: str, match: Json, peer_tls: PeerTls, accept: Callable[[Reporter], Json], context: Context, http: bool
) -> list[Json]:
    """The filter chains of one port; `accept`: their filter. PERMISSIVE tells mesh TLS by the ALPN that only mesh
    clients offer; an app's own TLS passes to ports that do not speak HTTP (there it would pass policy by as well)."""
    unproven = [accept(Reporter.PLAIN)]
    if peer_tls is PeerTls.DISABLE:
        return [{"name": f"{name}/plain", "filter_chain_match": match, "filters": unproven}]
    mesh_match = {**match, "transport_protocol": "tls"}
    if peer_tls is PeerTls.PERMISSIVE:
        mesh_match["application_protocols"] = list(tls.MESH_ALPN)
    chains: list[Json] = [
        {
            "name": f"{name}/mtls",
            "filter_chain_match": mesh_match,
            "filters": [accept(Reporter.DESTINATION)],
            "transport_socket": tls.mesh_server(context.trust_domains, http=http),
            "transport_socket_connect_timeout": _HANDSHAKE_TIMEOUT,
        }
    ]
    if peer_tls is PeerTls.PERMISSIVE:
        plain = {**match, "transport_protocol": "raw_buffer"}
        chains.append({"name": f"{name}/plain", "filter_chain_match": plain, "filters": unproven})
        if not http:
            own = {**match, "transport_protocol": "tls"}
            chains.append({"name": f"{name}/own-tls", "filter_chain_match": own, "filters": unproven})
    return chains
