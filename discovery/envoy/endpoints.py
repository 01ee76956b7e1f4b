"""Endpoint sets as cluster load assignments."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

from discovery.envoy.values import Json, socket_address
from discovery.plan.model import Endpoint, EndpointSet
from mesh.wire import ResourceType
from mesh.workloads import METADATA
from mesh.xds import TYPE_URLS

_TYPE = TYPE_URLS[ResourceType.ENDPOINTS]
# What clusters with automatic mutual TLS choose an endpoint's transport socket by (`clusters.py`).
_MESH_TLS: Json = {"envoy.transport_socket_match": {"tlsMode": "istio"}}
_priority = attrgetter("priority")


def load_assignment(endpoints: EndpointSet) -> Json:
    """A `ClusterLoadAssignment`. All of one priority in one locality."""
    rendered: Json = {"@type": _TYPE, "cluster_name": endpoints.name, "endpoints": []}
    for priority, found in groupby(sorted(endpoints.endpoints, key=_priority), _priority):
        group: Json = {"lb_endpoints": [_endpoint(each) for each in found]}
        rendered["endpoints"].append({"priority": priority, **group} if priority else group)
    return rendered


def _endpoint(each: Endpoint) -> Json:
    endpoint: Json = {"address": {"socket_address": {"address": each.address, "port_value": each.port}}}
    if each.also:
        endpoint["additional_addresses"] = [{"address": socket_address(other, each.port)} for other in each.also]
    metadata = dict(_MESH_TLS) if each.mesh_tls else {}
    if each.reported is not None:
        metadata[METADATA] = {"workload": each.reported.packed}
    return {"endpoint": endpoint, "metadata": {"filter_metadata": metadata}} if metadata else {"endpoint": endpoint}
