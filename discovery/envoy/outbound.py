"""Everything that this pod sends: `virtualOutbound`, and a listener for each intercepted address and port."""

from __future__ import annotations

from discovery.envoy import network
from discovery.envoy.clusters import BLACKHOLE, PASSTHROUGH
from discovery.envoy.context import Context
from discovery.envoy.http import Side, connection_manager
from discovery.envoy.metrics import Reporter
from discovery.envoy.reports import http_reports, refused_log, tcp_reports, unmeasured
from discovery.envoy.values import WILDCARD, Json
from discovery.plan.model import OutboundListener
from mesh import ports
from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS

VIRTUAL_OUTBOUND = "virtualOutbound"
_TYPE = TYPE_URLS[ResourceType.LISTENERS]


def virtual_outbound(context: Context, *, allow_any: bool) -> Json:
    """The `Listener` on 15001, the only one here that is bound: it hands each connection to the listener of the address
    that the app meant, and keeps what no listener takes. Who connects to 15001 itself gets nowhere."""
    rest = PASSTHROUGH if allow_any else BLACKHOLE
    reports = tcp_reports(context, Reporter.SOURCE)
    return {
        "@type": _TYPE,
        "name": VIRTUAL_OUTBOUND,
        **context.address(WILDCARD, ports.OUTBOUND),
        "use_original_dst": True,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [
            {
                "name": "virtualOutbound-blackhole",
                "filter_chain_match": {"destination_port": ports.OUTBOUND},
                "filters": [network.to_cluster(BLACKHOLE, BLACKHOLE, unmeasured(context, Reporter.SOURCE))],
            },
            {"name": "virtualOutbound-catchall-tcp", "filters": [network.to_cluster(rest, rest, reports)]},
        ],
        **refused_log(context, Reporter.SOURCE),
    }


def outbound_listener(listener: OutboundListener, context: Context) -> Json:
    """A `Listener` that is not bound: it gets its connections from `virtualOutbound`."""
    if listener.protocol.is_http and listener.route_table:
        stats = f"outbound_{listener.address}_{listener.port}"
        accept = connection_manager(Side.OUTBOUND, stats, listener.route_table, http_reports(context, Reporter.SOURCE))
    else:
        accept = network.tcp_proxy(listener.targets, _stats(listener), tcp_reports(context, Reporter.SOURCE))
    return {
        "@type": _TYPE,
        "name": listener.name,
        **context.address(listener.address, listener.port),
        "bind_to_port": False,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"name": listener.name, "filters": [accept]}],
    }


def _stats(listener: OutboundListener) -> str:
    return listener.targets[0].destination if len(listener.targets) == 1 else listener.name
