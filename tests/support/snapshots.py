"""Snapshots for tests, from the manifests that people write: what a cluster would fill in is filled in here.

    snapshot(TEXT)                        Services, Deployments, Pods, Istio's kinds, ConfigMap istio ...
    mesh_of(services=1000, endpoints=10)  many equal services, for benches

Cluster IPs (10.96.0.n) and pod IPs (10.244.0.n) are given in the order of names, so that the order of the documents
does not matter. Pods run and are ready, and have a sidecar, unless they say otherwise (`status`, label
`sidecar.istio.io/inject: "false"`, hostNetwork). Endpoint slices follow from selectors unless the manifests bring some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from mesh.kinds import KINDS, parse_istio
from mesh.objects import (
    SIDECAR_STATUS_ANNOTATION,
    ContainerPort,
    EndpointSlice,
    Key,
    Meta,
    Namespace,
    Pod,
    Service,
    SliceEndpoint,
    parse_endpoint_slice,
    parse_namespace,
    parse_node,
    parse_pod,
    parse_secret,
    parse_service,
)
from mesh.settings import MeshSettings, parse_mesh_settings
from mesh.snapshot import Snapshot

Raw = dict[str, Any]
ISTIO_KINDS = frozenset(kind.kind for kind in KINDS if kind.model is not None)


def snapshot(text: str) -> Snapshot:
    """The snapshot of the YAML documents in `text`."""
    return snapshot_of(document for document in yaml.safe_load_all(text) if document)


def snapshot_of(documents: Iterable[Raw]) -> Snapshot:
    by_kind: dict[str, list[Raw]] = {}
    for raw in documents:
        raw.setdefault("metadata", {}).setdefault("namespace", "default")
        by_kind.setdefault(raw["kind"], []).append(raw)
    for found in by_kind.values():
        found.sort(key=lambda raw: (raw["metadata"]["namespace"], raw["metadata"]["name"]))
    services = _services(by_kind.pop("Service", []))
    pods = _pods(by_kind)
    slices = [parse_endpoint_slice(raw) for raw in by_kind.pop("EndpointSlice", [])]
    explicit = {piece.service for piece in slices}
    for key, service in services.items():
        if key not in explicit:
            slices.extend(slices_of(service, pods.values()))
    secrets = [parse_secret(raw) for raw in by_kind.pop("Secret", [])]
    settings, settings_at = MeshSettings(), Snapshot().settings_at
    for raw in by_kind.pop("ConfigMap", []):
        if raw["metadata"]["name"] == "istio":
            settings_at = Key(raw["metadata"]["namespace"], "istio")
            settings = parse_mesh_settings(raw["data"]["mesh"], settings_at.namespace)
    namespaces = [parse_namespace(raw) for raw in by_kind.pop("Namespace", [])]
    nodes = [parse_node(raw) for raw in by_kind.pop("Node", [])]
    istio = {
        kind: {Key(raw["metadata"]["namespace"], raw["metadata"]["name"]): parse_istio(raw) for raw in found}
        for kind, found in sorted(by_kind.items())
        if kind in ISTIO_KINDS
    }
    return Snapshot(
        settings=settings,
        settings_at=settings_at,
        namespaces={namespace.meta.name: namespace for namespace in namespaces},
        nodes={node.meta.name: node for node in nodes},
        pods=pods,
        services=services,
        slices={piece.meta.key: piece for piece in slices},
        secrets={secret.meta.key: secret for secret in secrets},
        istio=istio,
    )


def _services(documents: list[Raw]) -> dict[Key, Service]:
    services = {}
    for number, raw in enumerate(documents, 1):
        spec = raw["spec"]
        if spec.get("type") != "ExternalName":
            spec.setdefault("clusterIP", f"10.96.{number // 250}.{number % 250}")
        service = parse_service(raw)
        services[service.meta.key] = service
    return services


def _pods(by_kind: dict[str, list[Raw]]) -> dict[Key, Pod]:
    documents = by_kind.pop("Pod", [])
    for kind in ("Deployment", "ReplicaSet", "StatefulSet"):
        for raw in by_kind.pop(kind, []):
            documents.extend(_replicas(raw))
    documents.sort(key=lambda raw: (raw["metadata"]["namespace"], raw["metadata"]["name"]))
    pods = {}
    for number, raw in enumerate(documents, 1):
        meta = raw["metadata"]
        if meta.get("labels", {}).get("sidecar.istio.io/inject") != "false" and not raw["spec"].get("hostNetwork"):
            meta.setdefault("annotations", {}).setdefault(SIDECAR_STATUS_ANNOTATION, "{}")
        status = raw.setdefault("status", {})
        status.setdefault("podIP", f"10.244.{number // 250}.{number % 250}")
        status.setdefault("phase", "Running")
        status.setdefault("conditions", [{"type": "Ready", "status": "True"}])
        pod = parse_pod(raw)
        pods[pod.meta.key] = pod
    return pods


def _replicas(raw: Raw) -> Iterable[Raw]:
    template = raw["spec"]["template"]
    for number in range(raw["spec"].get("replicas", 1)):
        meta = template.get("metadata", {})
        yield {
            "metadata": {
                "namespace": raw["metadata"]["namespace"],
                "name": f"{raw['metadata']['name']}-{number}",
                "labels": dict(meta.get("labels", {})),
                "annotations": dict(meta.get("annotations", {})),
            },
            "spec": template["spec"],
        }


def slices_of(service: Service, pods: Iterable[Pod]) -> list[EndpointSlice]:
    """What the endpoint slice controller makes: one slice for each set of port numbers (named target ports differ)."""
    if not service.selector or service.type == "ExternalName":
        return []
    by_ports: dict[tuple[tuple[str, int], ...], list[Pod]] = {}
    for pod in pods:
        labels = pod.meta.labels
        if pod.meta.namespace == service.meta.namespace and service.selector.items() <= labels.items() and pod.ip:
            by_ports.setdefault(_numbers(service, pod), []).append(pod)
    return [
        EndpointSlice(
            meta=Meta(service.meta.namespace, f"{service.meta.name}-{index}"),
            service=service.meta.key,
            ports=dict(numbers),
            endpoints=tuple(_slice_endpoint(pod) for pod in found),
        )
        for index, (numbers, found) in enumerate(sorted(by_ports.items()))
    ]


def _slice_endpoint(pod: Pod) -> SliceEndpoint:
    return SliceEndpoint(
        pod.ip, pod.ready and not pod.deleting, pod.deleting, pod.meta.key, serving=pod.ready, node=pod.node
    )


def _numbers(service: Service, pod: Pod) -> tuple[tuple[str, int], ...]:
    named = {port.name: port.port for port in pod.ports}
    found = []
    for port in service.ports:
        target = named.get(port.target) if isinstance(port.target, str) else port.target or port.port
        if target:
            found.append((port.name, target))
    return tuple(found)


def mesh_of(
    services: int, endpoints: int, port_name: str = "http", istio: Mapping[str, Mapping[Key, Any]] | None = None
) -> Snapshot:
    """`services` services of `endpoints` pods each, on port 8080, all in namespace default; and pod `client`."""
    found: dict[Key, Service] = {}
    pods: dict[Key, Pod] = {}
    slices: dict[Key, EndpointSlice] = {}
    text = f"spec: {{selector: {{app: X}}, ports: [{{name: {port_name}, port: 8080, targetPort: 8080}}]}}"
    for number in range(services):
        name = f"svc-{number}"
        raw = yaml_value(text)
        raw["metadata"] = {"namespace": "default", "name": name}
        raw["spec"]["selector"]["app"] = name
        raw["spec"]["clusterIP"] = f"10.96.{number // 250}.{number % 250}"
        service = parse_service(raw)
        found[service.meta.key] = service
        own = [_pod(f"{name}-{at}", name, number * endpoints + at) for at in range(endpoints)]
        pods.update((pod.meta.key, pod) for pod in own)
        slices.update((piece.meta.key, piece) for piece in slices_of(service, own))
    client = _pod("client", "client", services * endpoints)
    pods[client.meta.key] = client
    return Snapshot(
        namespaces={"default": Namespace(Meta("", "default"))},
        pods=pods,
        services=found,
        slices=slices,
        istio=dict(istio or {}),
    )


_parsed: dict[str, Raw] = {}


def yaml_value(text: str) -> Raw:
    """A fresh copy of a small YAML text, which is parsed once."""
    if text not in _parsed:
        _parsed[text] = yaml.safe_load(text)
    return _copy(_parsed[text])


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _pod(name: str, app: str, number: int) -> Pod:
    return Pod(
        meta=Meta("default", name, labels={"app": app}, annotations={SIDECAR_STATUS_ANNOTATION: "{}"}),
        service_account=app,
        node="node",
        ip=f"10.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}",
        phase="Running",
        ready=True,
        host_network=False,
        has_sidecar=True,
        deleting=False,
        ports=(ContainerPort("app", "http", 8080, "TCP"),),
    )
