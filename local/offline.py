"""What a cluster would make of manifests, without running anything: pods with their sidecars, addresses, endpoints.

Every pod runs and is ready, unless its own manifest says otherwise. Pure. Names and addresses follow from the names in
the manifests, so that two sets of manifests can be compared.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from local import shapes
from local.endpoints import endpoint_slices, with_cluster_ip
from mesh.annotations import NAMESPACE_INJECTION
from mesh.errors import InvalidInput
from mesh.identity import CONTROL_NAMESPACE
from mesh.kinds import find_kind
from mesh.objects import Key
from mesh.problems import FieldProblem, ObjectErrors
from mesh.settings import SETTINGS_KEY, MeshSettings, mesh_settings, parse_mesh_settings, problem_of
from webhook.config import InjectionConfig
from webhook.workloads import POD_AT, inject_object

Raw = dict[str, Any]
Objects = Mapping[str, Sequence[Raw]]
"""By kind."""
Wrong = Callable[[Raw, ObjectErrors], None]

POD_RANGE = ipaddress.ip_network("10.244.0.0/16")
FIRST_ADDRESS = 256
ASSUMED = {NAMESPACE_INJECTION: "enabled"}
"""Of a namespace that no manifest describes."""
_ONE_EACH = ("DaemonSet", "Job", "CronJob")
_OWNED_BY_OTHERS = ("ReplicaSet", "Job")


def refuse(_raw: Raw, error: ObjectErrors) -> None:
    raise error


def completed(documents: Iterable[Raw], default_namespace: str = "default", wrong: Wrong = refuse) -> Objects:
    """The objects that would be there. `wrong` is told of each that no API server would take, and of each whose pod
    cannot be injected as it is written; if it returns, the others are completed without it."""
    by_kind = _by_kind(_sound(documents, wrong), default_namespace)
    config = InjectionConfig(settings=_settings(by_kind, wrong))
    labels = {raw["metadata"]["name"]: raw["metadata"].get("labels") or {} for raw in by_kind.get("Namespace", [])}
    pods = _with_addresses(_pods(by_kind, labels, config, wrong))
    services = _with_cluster_ips(by_kind.get("Service", []))
    given = by_kind.get("EndpointSlice", [])
    described = {_service_of(piece) for piece in given}
    slices = [*given, *endpoint_slices([each for each in services if _key(each) not in described], pods)]
    return {**by_kind, "Pod": pods, "Service": services, "EndpointSlice": slices}


def mistakes(raw: Raw) -> list[FieldProblem]:
    """The fields of one of Kubernetes' own objects that no API server would take."""
    kind = raw["kind"]
    if kind not in shapes.KINDS or find_kind(raw["apiVersion"], kind) is None:
        return []
    return shapes.type_problems(kind, shapes.without_nulls(raw))


def _sound(documents: Iterable[Raw], wrong: Wrong) -> Iterator[Raw]:
    for raw in documents:
        problems = mistakes(raw)
        if problems:
            wrong(raw, ObjectErrors(f"{raw['kind']} {_key(raw)}", problems))
        else:
            yield raw


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


def settings_key(objects: Objects) -> Key:
    """The ConfigMap of the mesh's settings among the objects: its namespace is the control plane's."""
    usual = Key(CONTROL_NAMESPACE, "istio")
    found = [_key(raw) for raw in objects.get("ConfigMap", ())]
    return usual if usual in found else next((key for key in found if key.name == usual.name), usual)


def _settings(objects: Objects, wrong: Wrong) -> MeshSettings:
    key = settings_key(objects)
    for raw in objects.get("ConfigMap", ()):
        if _key(raw) == key:
            try:
                return parse_mesh_settings((raw.get("data") or {}).get(SETTINGS_KEY, ""), key.namespace)
            except InvalidInput as error:
                wrong(raw, ObjectErrors(f"ConfigMap {key}", [problem_of(error)]))
    return mesh_settings(key.namespace)


# ---- pods


def _pods(
    by_kind: Objects, labels: Mapping[str, Mapping[str, str]], config: InjectionConfig, wrong: Wrong
) -> list[Raw]:
    """Those that are described, and those of workloads of which none is (a dump of a cluster has both)."""
    described = list(by_kind.get("Pod", ()))
    owners = {owner for raw in (*described, *by_kind.get("ReplicaSet", ())) for owner in _owners(raw)}
    found: list[Raw] = []
    for api_version, kind in POD_AT:
        for raw in by_kind.get(kind, ()):
            if raw["apiVersion"] != api_version or _names_owner(raw, kind, owners):
                continue
            try:
                found += _injected(raw, labels, config)
            except ObjectErrors as error:
                wrong(raw, ObjectErrors(error.about, [_in_object(each, raw) for each in error.problems]))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                says = f"it is no {kind} as Kubernetes defines it: {error}"
                problem = FieldProblem((), says, "compare it with Kubernetes' reference")
                wrong(raw, ObjectErrors(f"{kind} {_key(raw)}", [problem]))
    return sorted((_running(raw) for raw in found), key=_key)


def _injected(raw: Raw, labels: Mapping[str, Mapping[str, str]], config: InjectionConfig) -> list[Raw]:
    """The pods that come of one that is described, or of a workload."""
    namespace = raw["metadata"]["namespace"]
    injected = inject_object(raw, namespace, labels.get(namespace, ASSUMED), config)
    assert injected is not None
    if raw["kind"] == "Pod":
        return [injected.object]
    return list(_replicas(injected.object, POD_AT[raw["apiVersion"], raw["kind"]]))


def _in_object(problem: FieldProblem, raw: Raw) -> FieldProblem:
    """What injection says of a pod, as a problem of the object that the pod is in."""
    way = POD_AT[raw["apiVersion"], raw["kind"]]
    return problem if problem.path == way[: len(problem.path)] else problem.under(*way)


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
