"""Kubernetes core objects, reduced to what Heddle uses, as small slotted values.

Every `parse_*` takes the object as Kubernetes' JSON has it. Objects compare and hash by identity (`eq=False`): an
unchanged object keeps its identity from snapshot to snapshot, so that what was computed from it can be memoised.
Field meaning: Kubernetes API reference v1.37 (core/v1, discovery.k8s.io/v1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mesh.ports import PROXY_UID
from mesh.workloads import workload_name


class Key(NamedTuple):
    """Namespace (empty for cluster-scoped objects) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True, eq=False)
class Meta:
    """What every object has. `created` is RFC 3339 text, which sorts by time."""

    namespace: str
    name: str
    uid: str = ""
    resource_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def key(self) -> Key:
        return Key(self.namespace, self.name)


def parse_meta(raw: Mapping[str, Any]) -> Meta:
    meta = raw.get("metadata") or {}
    return Meta(
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        resource_version=meta.get("resourceVersion", ""),
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
        created=meta.get("creationTimestamp") or "",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Namespace:
    meta: Meta


ZONE_LABEL = "topology.kubernetes.io/zone"
REGION_LABEL = "topology.kubernetes.io/region"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """Where a node is; empty where its labels do not say."""

    meta: Meta
    region: str
    zone: str


def parse_node(raw: Mapping[str, Any]) -> Node:
    """Keeps the labels for the place only: the rest of a node changes all the time."""
    meta = parse_meta(raw)
    kept = Meta(meta.namespace, meta.name, meta.uid, meta.resource_version, created=meta.created)
    return Node(kept, meta.labels.get(REGION_LABEL, ""), meta.labels.get(ZONE_LABEL, ""))


@dataclass(frozen=True, slots=True, eq=False)
class ContainerPort:
    container: str
    name: str
    port: int
    protocol: str


@dataclass(frozen=True, slots=True, eq=False)
class Pod:
    """`ip` is empty until the pod has one; `has_sidecar` is what the injection wrote, not what a label wishes."""

    meta: Meta
    service_account: str
    node: str
    ip: str
    phase: str
    ready: bool
    host_network: bool
    has_sidecar: bool
    deleting: bool
    ports: tuple[ContainerPort, ...]
    other_ips: tuple[str, ...] = ()
    """Of the other IP family, in a dual-stack cluster."""
    workload: str = ""
    """The name of what a person wrote: that of a Deployment, say."""
    proxy_image: str = ""
    """Of the container `istio-proxy`, if there is one."""
    beside_the_rules: tuple[str, ...] = ()
    """The app's containers that run as the proxy's user, whose traffic is never intercepted."""

    @property
    def ips(self) -> tuple[str, ...]:
        return (self.ip, *self.other_ips) if self.ip else ()

    @property
    def finished(self) -> bool:
        """Its containers have ended for good; its address may be another pod's by now."""
        return self.phase in ("Succeeded", "Failed")


SIDECAR_STATUS_ANNOTATION = "sidecar.istio.io/status"
PROXY_CONTAINER = "istio-proxy"
"""The sidecar's or the gateway's: agent and Envoy."""


def parse_pod(raw: Mapping[str, Any]) -> Pod:
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    meta = parse_meta(raw)
    containers = spec.get("containers") or ()
    every = (*containers, *(spec.get("initContainers") or ()))
    return Pod(
        meta=meta,
        service_account=spec.get("serviceAccountName") or "default",
        node=spec.get("nodeName", ""),
        ip=status.get("podIP", ""),
        phase=status.get("phase", "Pending"),
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()),
        host_network=bool(spec.get("hostNetwork")),
        has_sidecar=SIDECAR_STATUS_ANNOTATION in meta.annotations,
        deleting="deletionTimestamp" in (raw.get("metadata") or {}),
        ports=tuple(
            ContainerPort(c.get("name", ""), p.get("name", ""), int(p["containerPort"]), p.get("protocol", "TCP"))
            for c in containers
            for p in c.get("ports") or ()
        ),
        other_ips=_others(status.get("podIPs"), status.get("podIP", "")),
        workload=workload_name(raw),
        proxy_image=next((c.get("image", "") for c in every if c.get("name") == PROXY_CONTAINER), ""),
        beside_the_rules=tuple(
            c.get("name", "") for c in containers if c.get("name") != PROXY_CONTAINER and _user(c, spec) == PROXY_UID
        ),
    )


def _user(container: Mapping[str, Any], spec: Mapping[str, Any]) -> Any:
    """The user id that the manifest asks for; None where it leaves that to the image."""
    own = (container.get("securityContext") or {}).get("runAsUser")
    return (spec.get("securityContext") or {}).get("runAsUser") if own is None else own


def _others(listed: Any, first: str) -> tuple[str, ...]:
    """The addresses of `podIPs` beside `podIP`."""
    return tuple(each["ip"] for each in listed or () if each.get("ip") not in ("", None, first))


@dataclass(frozen=True, slots=True, eq=False)
class ServicePort:
    """`target` is a number or the name of a container port; 0 where the manifest leaves it out and means `port`."""

    name: str
    port: int
    target: int | str
    protocol: str
    app_protocol: str


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """`cluster_ip` is empty for headless and ExternalName services; `other_cluster_ips` are of the other IP family."""

    meta: Meta
    type: str
    cluster_ip: str
    headless: bool
    external_name: str
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    other_cluster_ips: tuple[str, ...] = ()
    session_affinity: bool = False
    """A client's connections go to one endpoint (`ClientIP`)."""
    traffic_distribution: str = ""

    @property
    def cluster_ips(self) -> tuple[str, ...]:
        return (self.cluster_ip, *self.other_cluster_ips) if self.cluster_ip else ()

    def hostname(self, domain: str = "cluster.local") -> str:
        return f"{self.meta.name}.{self.meta.namespace}.svc.{domain}"


def parse_service(raw: Mapping[str, Any]) -> Service:
    spec = raw.get("spec") or {}
    cluster_ip = spec.get("clusterIP") or ""
    return Service(
        meta=parse_meta(raw),
        type=spec.get("type", "ClusterIP"),
        cluster_ip="" if cluster_ip == "None" else cluster_ip,
        headless=cluster_ip == "None",
        external_name=spec.get("externalName", ""),
        selector=spec.get("selector") or {},
        ports=tuple(
            ServicePort(
                name=p.get("name", ""),
                port=int(p["port"]),
                target=p.get("targetPort") or int(p["port"]),
                protocol=p.get("protocol", "TCP"),
                app_protocol=p.get("appProtocol") or "",
            )
            for p in spec.get("ports") or ()
        ),
        other_cluster_ips=tuple(ip for ip in spec.get("clusterIPs") or () if ip not in ("", "None", cluster_ip)),
        session_affinity=spec.get("sessionAffinity") == "ClientIP",
        traffic_distribution=spec.get("trafficDistribution") or "",
    )


@dataclass(frozen=True, slots=True, eq=False)
class SliceEndpoint:
    """`pod` is the key of the pod behind the address, None for an address that is no pod.

    `serving` is readiness that termination does not change. `ready` and `terminating` go together only where the
    service publishes addresses that are not ready. `node` and `zone` are empty where they are not known.
    """

    address: str
    ready: bool
    terminating: bool
    pod: Key | None
    serving: bool = True
    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class EndpointSlice:
    """`ports` maps the service port's name ("" where it has none) to the port number on the endpoints."""

    meta: Meta
    service: Key
    ports: Mapping[str, int]
    endpoints: tuple[SliceEndpoint, ...]


def parse_endpoint_slice(raw: Mapping[str, Any]) -> EndpointSlice:
    meta = parse_meta(raw)
    endpoints: list[SliceEndpoint] = []
    for endpoint in raw.get("endpoints") or ():
        conditions = endpoint.get("conditions") or {}
        ready = conditions.get("ready") is not False  # absent means ready, by the API's own rule
        serving = conditions.get("serving")  # absent means as `ready`
        target = endpoint.get("targetRef") or {}
        pod = Key(target.get("namespace", meta.namespace), target["name"]) if target.get("kind") == "Pod" else None
        endpoints.extend(
            SliceEndpoint(
                address=address,
                ready=ready,
                terminating=bool(conditions.get("terminating")),
                pod=pod,
                serving=ready if serving is None else bool(serving),
                node=endpoint.get("nodeName") or "",
                zone=endpoint.get("zone") or "",
            )
            for address in endpoint.get("addresses") or ()
        )
    return EndpointSlice(
        meta=meta,
        service=Key(meta.namespace, meta.labels.get("kubernetes.io/service-name", "")),
        ports={p.get("name") or "": int(p["port"]) for p in raw.get("ports") or () if p.get("port")},
        endpoints=tuple(endpoints),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Secret:
    """`data` is base64 text, as the API has it. Never logged."""

    meta: Meta
    type: str
    data: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Secret({self.meta.key}, keys={sorted(self.data)})"


def parse_secret(raw: Mapping[str, Any]) -> Secret:
    return Secret(parse_meta(raw), raw.get("type", "Opaque"), raw.get("data") or {})


@dataclass(frozen=True, slots=True, eq=False)
class ConfigMap:
    meta: Meta
    data: Mapping[str, str]


def parse_config_map(raw: Mapping[str, Any]) -> ConfigMap:
    return ConfigMap(parse_meta(raw), raw.get("data") or {})


def parse_namespace(raw: Mapping[str, Any]) -> Namespace:
    return Namespace(parse_meta(raw))
