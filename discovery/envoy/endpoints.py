"""Endpoint sets as cluster load assignments."""

from __future__ import annotations

from discovery.envoy.values import Json
from discovery.plan.model import EndpointSet
from mesh.wire import ResourceType
from mesh.xds import TYPE_URLS

_TYPE = TYPE_URLS[ResourceType.ENDPOINTS]
# What clusters with automatic mutual TLS choose an endpoint's transport socket by (`clusters.py`).
_MESH_TLS = {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}


def load_assignment(endpoints: EndpointSet) -> Json:
    """A `ClusterLoadAssignment`. All in one locality of one priority."""
    rendered: Json = {"@type": _TYPE, "cluster_name": endpoints.name, "endpoints": []}
    if endpoints.endpoints:
        rendered["endpoints"] = [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {"address": {"socket_address": {"address": each.address, "port_value": each.port}}},
                        "metadata": _MESH_TLS,
                    }
                    if each.mesh_tls
                    else {
                        "endpoint": {"address": {"socket_address": {"address": each.address, "port_value": each.port}}}
                    }
                    for each in endpoints.endpoints
                ]
            }
        ]
    return rendered
