"""Parts that every listener is made of: TCP proxy, listener filters, matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from discovery.envoy.clusters import BLACKHOLE
from discovery.envoy.values import Json
from discovery.plan.model import Target
from mesh.xds import STATS_DELIMITER

ORIGINAL_DESTINATION: Json = {
    "name": "envoy.filters.listener.original_dst",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"},
}
_TLS_INSPECTOR: Json = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
}


def tcp_proxy(targets: Sequence[Target], stat_prefix: str, reports: Json) -> Json:
    """The network filter that passes bytes to `targets` in proportion; to nowhere when nothing has any weight.
    `reports`: its fields for logs and metrics (`reports.py`)."""
    weighted = targets if len(targets) == 1 else [target for target in targets if target.weight > 0]
    if len(weighted) > 1:
        clusters = [{"name": target.destination, "weight": target.weight} for target in weighted]
        to: Json = {"weighted_clusters": {"clusters": clusters}}
    else:
        to = {"cluster": weighted[0].destination if weighted else BLACKHOLE}
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": stat_prefix + STATS_DELIMITER,
            # Counts only where the destination balances by hash.
            "hash_policy": [{"source_ip": {}}],
            **to,
            **reports,
        },
    }


def to_cluster(cluster: str, stat_prefix: str, reports: Json) -> Json:
    return tcp_proxy((Target(cluster),), stat_prefix, reports)


def tls_inspector(*, everywhere: bool = True, except_ports: Iterable[int] = ()) -> Json:
    """Reads a connection's first bytes to see TLS, SNI and ALPN. `except_ports`: where it is the other way round, so
    that a server that speaks first is not waited for."""
    ports = sorted(except_ports)
    if not ports:
        return _TLS_INSPECTOR
    rules: list[Json] = [{"destination_port_range": {"start": port, "end": port + 1}} for port in ports]
    these: Json = rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}
    return {**_TLS_INSPECTOR, "filter_disabled": these if everywhere else {"not_match": these}}
