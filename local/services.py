"""What kube-proxy does: the node's NAT rules for Services, as one iptables-restore text. Pure.

Services and EndpointSlices are Kubernetes' own JSON objects. Every ClusterIP (and NodePort on the node's address) is
sent to one of the ready endpoints at random; a port without endpoints is refused at once, and so is an address of the
service range that no service has. An endpoint that reaches itself through its service sees the node's address.
Sources: Kubernetes "Virtual IPs and Service Proxies"; iptables-extensions(8): statistic, REJECT, conntrack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """One port of one service: where it is reached, and the endpoints behind it."""

    namespace: str
    service: str
    port_name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int
    endpoints: tuple[tuple[str, int], ...]

    @property
    def chain(self) -> str:
        """The chain's name: at most 28 characters (iptables' limit), the same in every run."""
        key = f"{self.namespace}/{self.service}/{self.port_name}/{self.protocol}"
        return f"HEDDLE-{hashlib.sha256(key.encode()).hexdigest()[:16].upper()}"


def backends(services: Iterable[Object], slices: Iterable[Object]) -> list[Backend]:
    """All ports of all services that have a ClusterIP, in a stable order."""
    found = []
    by_service = group_by_service(slices)
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        address = spec.get("clusterIP") or ""
        if address in ("", "None") or ":" in address:
            continue
        namespace = metadata.get("namespace") or "default"
        own_slices = by_service.get((namespace, metadata["name"]), [])
        for port in spec.get("ports") or []:
            protocol = _PROTOCOLS.get(port.get("protocol") or "TCP")
            if protocol is None:
                continue
            name = port.get("name") or ""
            endpoints = tuple(sorted(ready_endpoints(own_slices, name, protocol.upper())))
            node_port = port.get("nodePort") or 0
            found.append(
                Backend(namespace, metadata["name"], name, protocol, address, port["port"], node_port, endpoints)
            )
    return sorted(found)


def group_by_service(slices: Iterable[Object]) -> dict[tuple[str, str], list[Object]]:
    """EndpointSlices by `(namespace, service name)`."""
    grouped: dict[tuple[str, str], list[Object]] = {}
    for item in slices:
        metadata = item["metadata"]
        name = (metadata.get("labels") or {}).get(SERVICE_NAME_LABEL)
        if name:
            grouped.setdefault((metadata.get("namespace") or "default", name), []).append(item)
    return grouped


def ready_endpoints(slices: Iterable[Object], port_name: str, protocol: str) -> set[tuple[str, int]]:
    """`(address, port)` of every endpoint that is ready, for the port of this name; an unset `ready` means ready."""
    found: set[tuple[str, int]] = set()
    for item in slices:
        ports = [
            port["port"]
            for port in item.get("ports") or []
            if (port.get("name") or "") == port_name
            and (port.get("protocol") or "TCP") == protocol
            and port.get("port")
        ]
        for endpoint in item.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            found.update((address, port) for address in endpoint.get("addresses") or [] for port in ports)
    return found


def rules(
    services: Iterable[Object],
    slices: Iterable[Object],
    *,
    node_address: str,
    service_range: str,
    node_services: Sequence[str] = (),
) -> str:
    """The text for `iptables-restore`: the whole nat and filter tables of the node.

    `node_services` are addresses of the service range that the node itself serves (DNS): they are left alone.
    """
    ports = backends(services, slices)
    nat = [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        ":INPUT ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":POSTROUTING ACCEPT [0:0]",
        ":HEDDLE-SERVICES - [0:0]",
    ]
    nat += [f":{port.chain} - [0:0]" for port in ports if port.endpoints]
    nat += ["-A PREROUTING -j HEDDLE-SERVICES", "-A OUTPUT -j HEDDLE-SERVICES"]
    hairpins = sorted({address for port in ports for address, _ in port.endpoints})
    nat += [
        f"-A POSTROUTING -s {address}/32 -d {address}/32 -m conntrack --ctstate DNAT -j SNAT --to-source {node_address}"
        for address in hairpins
    ]
    refused = []
    for port in ports:
        comment = f'-m comment --comment "{port.namespace}/{port.service}:{port.port_name or port.port}"'
        places = [f"-d {port.cluster_ip}/32 -p {port.protocol} -m {port.protocol} --dport {port.port} {comment}"]
        if port.node_port:
            places.append(
                f"-d {node_address}/32 -p {port.protocol} -m {port.protocol} --dport {port.node_port} {comment}"
            )
        if port.cluster_ip in node_services:
            continue
        if port.endpoints:
            nat += [f"-A HEDDLE-SERVICES {place} -j {port.chain}" for place in places]
            nat += _spread(port)
        else:
            refused += places
    return "\n".join([*nat, "COMMIT", *_filter(refused, service_range, node_services), "COMMIT", ""])


def _spread(port: Backend) -> list[str]:
    """One DNAT rule an endpoint; the probabilities make each equally likely."""
    lines = []
    for index, (address, number) in enumerate(port.endpoints):
        left = len(port.endpoints) - index
        chance = f" -m statistic --mode random --probability {1 / left:.11f}" if left > 1 else ""
        target = f"-p {port.protocol} -m {port.protocol} -j DNAT --to-destination {address}:{number}"
        lines.append(f"-A {port.chain}{chance} {target}")
    return lines


def _filter(refused: Iterable[str], service_range: str, node_services: Sequence[str]) -> list[str]:
    """The filter table: what still has a service's address after NAT has nobody behind it."""
    lines = [
        "*filter",
        ":INPUT ACCEPT [0:0]",
        ":FORWARD ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":HEDDLE-REFUSE - [0:0]",
        "-A INPUT -j HEDDLE-REFUSE",
        "-A FORWARD -j HEDDLE-REFUSE",
        "-A OUTPUT -j HEDDLE-REFUSE",
    ]
    lines += [f"-A HEDDLE-REFUSE -d {address}/32 -j RETURN" for address in node_services]
    lines += [f"-A HEDDLE-REFUSE {place} -j REJECT --reject-with {_refusal(place)}" for place in refused]
    lines.append(f"-A HEDDLE-REFUSE -d {service_range} -p tcp -j REJECT --reject-with tcp-reset")
    lines.append(f"-A HEDDLE-REFUSE -d {service_range} -j REJECT --reject-with icmp-host-unreachable")
    return lines


def _refusal(place: str) -> str:
    # An ICMP error for a packet that the node itself sends over lo never reaches the sender; a reset does.
    return "tcp-reset" if " -p tcp " in place else "icmp-port-unreachable"
