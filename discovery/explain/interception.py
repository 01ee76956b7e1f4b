"""Whether a connection passes the pod's proxy at all (mesh/interception.py writes the rules), and by which annotation.

An annotation that does not parse would have kept the pod from being created: it is taken for not being there.
"""

from __future__ import annotations

import ipaddress

from discovery.plan.origins import Origin
from mesh.annotations import PodOptions, parse_options
from mesh.interception import PROXY_PORTS
from mesh.objects import Pod
from mesh.problems import ObjectErrors

_TRAFFIC = "traffic.sidecar.istio.io/"


def bypassed_outbound(pod: Pod, address: str, port: int) -> tuple[str, Origin] | None:
    """Why a connection from the app to `address` (may be empty: unknown) goes out without the proxy."""
    options = _options(pod)
    if address and ipaddress.ip_address(address).is_loopback:
        return "the loopback is never intercepted", _origin(pod, "")
    if address in pod.ips:
        return "a pod that dials its own address does not pass its proxy", _origin(pod, "")
    if port in options.exclude_outbound_ports:
        return f"port {port} is left out of interception", _origin(pod, "excludeOutboundPorts")
    if address and _inside(address, options.exclude_outbound_cidrs):
        return f"{address} is left out of interception", _origin(pod, "excludeOutboundIPRanges")
    if port in options.include_outbound_ports or options.include_outbound_cidrs is None:
        return None
    if not address or _inside(address, options.include_outbound_cidrs):
        return None
    return f"{address} is not among the intercepted addresses", _origin(pod, "includeOutboundIPRanges")


def bypassed_inbound(pod: Pod, port: int) -> tuple[str, Origin] | None:
    """Why a connection to `port` of the pod goes straight to the app."""
    options = _options(pod)
    if port in PROXY_PORTS:
        return f"port {port} is the proxy's own", _origin(pod, "")
    if port in options.exclude_inbound_ports:
        return f"port {port} is left out of interception", _origin(pod, "excludeInboundPorts")
    if options.include_inbound_ports is not None and port not in options.include_inbound_ports:
        return f"port {port} is not among the intercepted ports", _origin(pod, "includeInboundPorts")
    return None


def _options(pod: Pod) -> PodOptions:
    try:
        return parse_options(pod.meta.annotations, f"Pod {pod.meta.key}")
    except ObjectErrors:
        return PodOptions()


def _inside(address: str, cidrs: tuple[str, ...]) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)


def _origin(pod: Pod, annotation: str) -> Origin:
    field = f'metadata.annotations["{_TRAFFIC}{annotation}"]' if annotation else ""
    return Origin("Pod", pod.meta.namespace, pod.meta.name, field)
