"""The plan of an Envoy that has no SVID, because no agent is beside it. Pure."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from discovery.plan.model import Destination, InboundPort, PeerTls, Plan


def without_identity(plan: Plan) -> Plan:
    """`plan`, with plain text wherever mesh mutual TLS is a choice.

    Where it is demanded (STRICT, ISTIO_MUTUAL) it stays demanded, and connections fail for want of a certificate:
    a policy must not be weaker for a proxy that cannot keep it.
    """
    return replace(
        plan,
        destinations=tuple(map(_destination, plan.destinations)),
        inbound=tuple(map(_inbound, plan.inbound)),
        inbound_default=_peer_tls(plan.inbound_default),
        shared=None,
    )


# Remembered, so that what is rendered by identity is found again.
@lru_cache(maxsize=16384)
def _destination(destination: Destination) -> Destination:
    automatic = destination.tls is not None and destination.tls.automatic
    return replace(destination, tls=None) if automatic else destination


def _inbound(port: InboundPort) -> InboundPort:
    return replace(port, peer_tls=_peer_tls(port.peer_tls))


def _peer_tls(mode: PeerTls) -> PeerTls:
    return PeerTls.DISABLE if mode is PeerTls.PERMISSIVE else mode
