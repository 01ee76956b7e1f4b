"""Cluster addresses and endpoints of services. Pure; what Kubernetes' service and endpoint slice controllers do."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from local.workloads import is_ready
from mesh.errors import Conflict
from mesh.objects import Key

Raw = dict[str, Any]
SERVICE_RANGE = ipaddress.ip_network("10.96.0.0/16")
DNS_ADDRESS = "10.96.0.10"
RESERVED = 256
"""The first addresses of the range are for the DNS server and for services that name their own address."""


def cluster_ip(key: Key, taken: Mapping[str, Key]) -> str:
    """The service's address: a hash of its name, the same from run to run; the next free one if taken."""
    usable = SERVICE_RANGE.num_addresses - RESERVED - 1
    start = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big") % usable
    for step in range(usable):
        address = str(SERVICE_RANGE[RESERVED + (start + step) % usable])
        if taken.get(address, key) == key:
            return address
    raise Conflict(
        f"no address is left for service {key}", field="spec.clusterIP", hint="delete services you do not need"
    )


def with_cluster_ip(service: Raw, taken: Mapping[str, Key]) -> Raw:
    """The service with its address filled in, unless it is headless, external, or names its own.

    Raises Conflict when it names an address that another service has.
    """
    spec = service.get("spec") or {}
    key = Key(service["metadata"]["namespace"], service["metadata"]["name"])
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None":
        return service
    wanted = spec.get("clusterIP")
    if wanted and taken.get(wanted, key) != key:
        raise Conflict(
            f"Service {key} asks for address {wanted}, which service {taken[wanted]} has",
            field="spec.clusterIP",
            hint="leave spec.clusterIP out, or choose another address",
        )
    address = wanted or cluster_ip(key, taken)
    return {**service, "spec": {**spec, "clusterIP": address, "clusterIPs": [address]}}


def endpoint_slices(services: Iterable[Raw], pods: Iterable[Raw]) -> list[Raw]:
    """The slices of every service that has a selector: one for each set of target port numbers its pods resolve to."""
    all_pods = list(pods)
    return [raw for service in services for raw in _slices(service, all_pods)]


def _slices(service: Raw, pods: list[Raw]) -> list[Raw]:
    spec, meta = service.get("spec") or {}, service["metadata"]
    selector = spec.get("selector")
    if not selector or spec.get("type") == "ExternalName":
        return []
    groups: dict[tuple[tuple[str, int, str], ...], list[Raw]] = {}
    for pod in pods:
        if pod["metadata"]["namespace"] != meta["namespace"] or not _selected(selector, pod) or not _address(pod):
            continue
        ports = tuple(
            (port.get("name") or "", number, port.get("protocol", "TCP"))
            for port in spec.get("ports") or ()
            if (number := target_port(port, pod)) is not None
        )
        groups.setdefault(ports, []).append(_endpoint(pod))
    return [_slice(service, ports, endpoints) for ports, endpoints in sorted(groups.items())]


def _slice(service: Raw, ports: tuple[tuple[str, int, str], ...], endpoints: list[Raw]) -> Raw:
    meta = service["metadata"]
    suffix = hashlib.sha256(repr(ports).encode()).hexdigest()[:5]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": meta["namespace"],
            "name": f"{meta['name']}-{suffix}",
            "labels": {"kubernetes.io/service-name": meta["name"], "endpointslice.kubernetes.io/managed-by": "heddle"},
        },
        "addressType": "IPv4",
        "ports": [{"name": name, "port": number, "protocol": protocol} for name, number, protocol in ports],
        "endpoints": sorted(endpoints, key=lambda endpoint: str(endpoint["addresses"])),
    }


def _endpoint(pod: Raw) -> Raw:
    meta = pod["metadata"]
    serving, terminating = is_ready(pod), "deletionTimestamp" in meta
    return {
        "addresses": [_address(pod)],
        "conditions": {"ready": serving and not terminating, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
        "nodeName": pod["spec"].get("nodeName", ""),
    }


def target_port(port: Raw, pod: Raw) -> int | None:
    """The number that a service port means on this pod; None where its name is no port of the pod."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    if target.isdigit():
        return int(target)
    containers = [*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ())]
    named = (p for container in containers for p in container.get("ports") or () if p.get("name") == target)
    return next((int(p["containerPort"]) for p in named), None)


def _selected(selector: Mapping[str, str], pod: Raw) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in selector.items())


def _address(pod: Raw) -> str:
    status = pod.get("status") or {}
    return "" if status.get("phase") in ("Succeeded", "Failed") else str(status.get("podIP", ""))
