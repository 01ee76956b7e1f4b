"""What a pod says about its proxy and its ports."""

from __future__ import annotations

from mesh.objects import PROXY_CONTAINER, Pod

TEMPLATES_ANNOTATION = "inject.istio.io/templates"
GATEWAY_TEMPLATE = "gateway"

ContainerPorts = tuple[tuple[str, int], ...]


def is_gateway(pod: Pod) -> bool:
    """Whether the pod's proxy is a gateway: its annotation `inject.istio.io/templates` holds `gateway`, as on every
    gateway that is deployed by injection. https://istio.io/latest/docs/setup/additional-setup/gateway/
    """
    templates = pod.meta.annotations.get(TEMPLATES_ANNOTATION, "")
    return GATEWAY_TEMPLATE in (part.strip() for part in templates.split(","))


def takes_mesh_tls(pod: Pod) -> bool:
    """Whether a sidecar answers for the pod. A gateway serves what its Gateways say, which is not mesh TLS."""
    return pod.has_sidecar and not is_gateway(pod)


def container_ports(pod: Pod) -> ContainerPorts:
    """Name and number of the TCP ports that the application's containers declare.

    Those of `istio-proxy` are the sidecar's own, unless the proxy is a gateway: there it is the application.
    """
    own = "" if is_gateway(pod) else PROXY_CONTAINER
    return tuple((port.name, port.port) for port in pod.ports if port.container != own and port.protocol in ("", "TCP"))
