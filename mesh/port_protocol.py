"""What a port says that is spoken on it.

Sources: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/ (appProtocol first, then
the port name `<protocol>[-<suffix>]`), https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol
(`kubernetes.io/h2c`, `ws`, `wss`). Pure.
"""

from __future__ import annotations

from enum import StrEnum


class Spoken(StrEnum):
    """What Envoy has to do with it."""

    TCP = "TCP"
    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    TLS = "TLS"


_BY_NAME = {
    "http": Spoken.HTTP,
    "http2": Spoken.HTTP2,
    "grpc": Spoken.HTTP2,
    "grpc-web": Spoken.HTTP2,
    "https": Spoken.TLS,
    "tls": Spoken.TLS,
    "tcp": Spoken.TCP,
    "mongo": Spoken.TCP,
    "redis": Spoken.TCP,
    "mysql": Spoken.TCP,
    "udp": Spoken.TCP,  # of a port that is TCP, whatever its name says
    "kubernetes.io/h2c": Spoken.HTTP2,
    "kubernetes.io/ws": Spoken.HTTP,
    "kubernetes.io/wss": Spoken.TLS,
}
NAMES = tuple(name for name in _BY_NAME if "/" not in name)
"""What a port's name may begin with."""


def spoken_on(name: str, app_protocol: str = "") -> Spoken | None:
    """What a TCP port of this name and `appProtocol` says; None where neither says anything that is known."""
    said = (app_protocol or name).lower()
    if said.startswith("grpc-web"):
        return Spoken.HTTP2
    return _BY_NAME.get(said) or _BY_NAME.get(said.partition("-")[0])
