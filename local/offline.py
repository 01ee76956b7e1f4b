"""What a cluster would make of manifests, without running anything: pods with their sidecars, addresses, endpoints.

Every pod runs and is ready, unless its own manifest says otherwise. Pure. Names and addresses follow from the names in
the manifests, so that two sets of manifests can be compared.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from local.endpoints import endpoint_slices, with_cluster_ip
from mesh.annotations import NAMESPACE_INJECTION
from mesh.identity import CONTROL_NAMESPACE
from mesh.kinds import find_kind
from mesh.objects import Key
from mesh.settings import MeshSettings, parse_mesh_settings
from webhook.config import InjectionConfig
from webhook.workloads import POD_AT, inject_object

Raw = dict[str, Any]
Objects = Mapping[str, Sequence[Raw]]
"""By kind."""

POD_RANGE = ipaddress.ip_network("10.244.0.0/16")
FIRST_ADDRESS = 256
ASSUMED = {NAMESPACE_INJECTION: "enabled"}
"""Of a namespace that no manifest describes."""
_ONE_EACH = ("DaemonSet", "Job", "CronJob")
_OWNED_BY_OTHERS = ("ReplicaSet", "Job")


def completed(documents: Iterable[Raw], default_namespace: str = "default") -> Objects:
    """The objects that would be there. ObjectErrors for a pod that cannot be injected as it is written."""
    by_kind = _by_kind(documents, default_namespace)
    config = InjectionConfig(settings=_settings(by_kind.get("ConfigMap", [])))
    labels = {raw["metadata"]["name"]: raw["metadata"].get("labels") or {} for raw in by_kind.get("Namespace", [])}
    pods = _with_addresses(_pods(by_kind, labels, config))
    services = _with_cluster_ips(by_kind.get("Service", []))
    given = by_kind.get("EndpointSlice", [])
    described = {_service_of(piece) for piece in given}
    slices = [*given, *endpoint_slices([each for each in services if _key(each) not in described], pods)]
    return {**by_kind, "Pod": pods, "Service": services, "EndpointSlice": slices}


def _by_kind(documents: Iterable[Raw], default_namespace: str) -> dict[str, list[Raw]]:
    """The last of several of one name counts, as when they are applied one after the other."""
    found: dict[str, dict[Key, Raw]] = {}
    for raw in documents:
        entry = find_kind(raw["apiVersion"], raw["kind"])
        namespaced = entry.namespaced if entry is not None else True
        meta = raw["metadata"]
        if namespaced:
            meta = {**meta, "namespace": meta.get("namespace") or default_namespace}
        meta = {**meta, "name": meta.get("name") or f"{meta.get('generateName', '')}0"}
        raw = {**raw, "metadata": meta}
        found.setdefault(raw["kind"], {})[_key(raw)] = raw
    return {kind: list(objects.values()) for kind, objects in found.items()}


def _settings(maps: Iterable[Raw]) -> MeshSettings:
    for raw in maps:
        if _key(raw) == Key(CONTROL_NAMESPACE, "istio"):
            return parse_mesh_settings((raw.get("data") or {}).get("mesh", ""))
    return MeshSettings()


# ---- pods


def _pods(by_kind: Objects, labels: Mapping[str, Mapping[str, str]], config: InjectionConfig) -> list[Raw]:
    """Those that are described, and those of workloads of which none is (a dump of a cluster has both)."""
    described = list(by_kind.get("Pod", ()))
    owners = {owner for raw in (*described, *by_kind.get("ReplicaSet", ())) for owner in _owners(raw)}
    found: list[Raw] = []
    for api_version, kind in POD_AT:
        for raw in by_kind.get(kind, ()):
            if raw["apiVersion"] != api_version or _names_owner(raw, kind, owners):
                continue
            namespace = raw["metadata"]["namespace"]
            injected = inject_object(raw, namespace, labels.get(namespace, ASSUMED), config)
            assert injected is not None
            found += [injected.object] if kind == "Pod" else _replicas(injected.object, POD_AT[api_version, kind])
    return sorted((_running(raw) for raw in found), key=_key)


def _names_owner(raw: Raw, kind: str, owners: set[tuple[str, Key]]) -> bool:
    """Whether its pods are described already, or are another object's to make."""
    return (kind, _key(raw)) in owners or (kind in _OWNED_BY_OTHERS and bool(list(_owners(raw))))


def _owners(raw: Raw) -> Iterator[tuple[str, Key]]:
    for owner in raw["metadata"].get("ownerReferences") or ():
        yield owner.get("kind", ""), Key(raw["metadata"]["namespace"], owner.get("name", ""))


def _replicas(workload: Raw, way: Sequence[str]) -> Iterator[Raw]:
    template: Any = workload
    for step in way:
        template = template[step]
    replicas = workload["spec"].get("replicas")
    meta = template.get("metadata") or {}
    owner = {"kind": workload["kind"], "name": workload["metadata"]["name"], "controller": True}
    count = 1 if replicas is None or workload["kind"] in _ONE_EACH else int(replicas)
    for number in range(count):
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": workload["metadata"]["namespace"],
                "name": f"{workload['metadata']['name']}-{number}",
                "labels": meta.get("labels") or {},
                "annotations": meta.get("annotations") or {},
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
        }


def _running(pod: Raw) -> Raw:
    status = pod.get("status") or {}
    made = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], **status}
    return {**pod, "metadata": {"uid": str(_key(pod)), **pod["metadata"]}, "status": made}


def _with_addresses(pods: list[Raw]) -> list[Raw]:
    """Those that have no address get a hash of their name, the next free one if it is taken."""
    taken = {pod["status"].get("podIP") for pod in pods}
    found = []
    for pod in pods:
        if not pod["status"].get("podIP"):
            address = _address(_key(pod), taken)
            taken.add(address)
            pod = {**pod, "status": {**pod["status"], "podIP": address}}
        found.append(pod)
    return found


def _address(key: Key, taken: set[str]) -> str:
    usable = POD_RANGE.num_addresses - FIRST_ADDRESS
    start = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big") % usable
    addresses = (str(POD_RANGE[FIRST_ADDRESS + (start + step) % usable]) for step in range(usable))
    return next(address for address in addresses if address not in taken)


def _with_cluster_ips(services: list[Raw]) -> list[Raw]:
    taken: dict[str, Key] = {}
    named = [each for each in services if (each.get("spec") or {}).get("clusterIP")]
    others = [each for each in services if not (each.get("spec") or {}).get("clusterIP")]
    found = []
    for service in (*named, *others):
        completed_service = with_cluster_ip(service, taken)
        address = (completed_service.get("spec") or {}).get("clusterIP")
        if address and address != "None":
            taken[address] = _key(service)
        found.append(completed_service)
    return found


def _service_of(piece: Raw) -> Key:
    labels = piece["metadata"].get("labels") or {}
    return Key(piece["metadata"]["namespace"], labels.get("kubernetes.io/service-name", ""))


def _key(raw: Raw) -> Key:
    return Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
