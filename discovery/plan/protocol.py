"""What is spoken on a service port, as plans have it: mesh/port_protocol.py says what the port itself says.

Istio sniffs ports that say nothing; Heddle takes them as TCP, which is right for every protocol, server-first ones
included, at the price of HTTP features (docs/adr/0031).
"""

from __future__ import annotations

from discovery.plan.model import Protocol
from mesh.objects import ServicePort
from mesh.port_protocol import Spoken, spoken_on

_OF = {
    Spoken.TCP: Protocol.TCP,
    Spoken.HTTP: Protocol.HTTP,
    Spoken.HTTP2: Protocol.HTTP2,
    Spoken.TLS: Protocol.TLS,
}


def protocol_of(port: ServicePort) -> Protocol | None:
    """None for a port that no proxy handles (UDP, SCTP)."""
    if port.protocol not in ("", "TCP"):
        return None
    return _OF[spoken_on(port.name, port.app_protocol) or Spoken.TCP]
