"""What is spoken on a service port.

Sources: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/ (appProtocol first, then
the port name `<protocol>[-<suffix>]`), https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol
(`kubernetes.io/h2c`, `ws`, `wss`). Istio sniffs ports that say nothing; Heddle takes them as TCP, which is right for
every protocol, server-first ones included, at the price of HTTP features (docs/adr/0031).
"""

from __future__ import annotations

from discovery.plan.model import Protocol
from mesh.objects import ServicePort

_BY_NAME = {
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "grpc": Protocol.HTTP2,
    "grpc-web": Protocol.HTTP2,
    "https": Protocol.TLS,
    "tls": Protocol.TLS,
    "tcp": Protocol.TCP,
    "mongo": Protocol.TCP,
    "redis": Protocol.TCP,
    "mysql": Protocol.TCP,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.TLS,
}


def protocol_of(port: ServicePort) -> Protocol | None:
    """None for a port that no proxy handles (UDP, SCTP)."""
    if port.protocol not in ("", "TCP"):
        return None
    said = (port.app_protocol or port.name).lower()
    if said == "udp" or said.startswith("udp-"):
        return Protocol.TCP  # the port is TCP, whatever its name says
    if said.startswith("grpc-web"):
        return Protocol.HTTP2
    return _BY_NAME.get(said) or _BY_NAME.get(said.partition("-")[0], Protocol.TCP)
