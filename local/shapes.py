"""What an API server's validation would say of a Kubernetes core object, as far as the engine reads the object. Pure.

Two steps for each kind: the types of the fields (tables below), then what the API reference says in words. Fields that
are not in the tables are left alone: whether they have an effect here is for `local.support` and
`local.unhonoured_kinds` to say.
Source: Kubernetes API reference (core/v1, apps/v1, batch/v1) and its validation rules.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from local.pod_shapes import POD_SPEC, pod_problems
from local.shape_checks import (
    Check,
    at_least,
    flag,
    listing,
    mapping,
    names_or_numbers,
    one_of,
    port,
    port_or_name,
    text,
    texts,
    whole,
)
from mesh.istio.rules import is_dns_label, is_object_name
from mesh.problems import FieldProblem, Path, show

Raw = Mapping[str, Any]

_META = mapping({"labels": texts, "annotations": texts, "name": text, "namespace": text})
_TEMPLATE = mapping({"metadata": _META, "spec": POD_SPEC}, required=("spec",))
_EXPRESSION = mapping({"key": text, "operator": text, "values": listing(text)}, required=("key", "operator"))
_SELECTOR = mapping({"matchLabels": texts, "matchExpressions": listing(_EXPRESSION)})
_WORKLOAD: dict[str, Check] = {"replicas": at_least(0), "selector": _SELECTOR, "template": _TEMPLATE}
_PORT = mapping(
    {
        "name": text,
        "port": port,
        "targetPort": port_or_name,
        "nodePort": whole(0, 65535),
        "protocol": one_of("TCP", "UDP", "SCTP"),
        "appProtocol": text,
    },
    required=("port",),
)

_SPECS: Mapping[str, Check] = {
    "Pod": POD_SPEC,
    "Deployment": mapping(
        {**_WORKLOAD, "strategy": mapping({"type": one_of("RollingUpdate", "Recreate")})},
        required=("selector", "template"),
    ),
    "ReplicaSet": mapping(_WORKLOAD, required=("selector", "template")),
    "Job": mapping(
        {
            "template": _TEMPLATE,
            "completions": at_least(0),
            "parallelism": at_least(0),
            "backoffLimit": at_least(0),
            "selector": _SELECTOR,
        },
        required=("template",),
    ),
    "Service": mapping(
        {
            "type": one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
            "clusterIP": text,
            "externalName": text,
            "selector": texts,
            "ports": listing(_PORT),
            "publishNotReadyAddresses": flag,
        }
    ),
}
_WITHOUT_SPEC: Mapping[str, Check] = {
    "ConfigMap": mapping({"data": texts, "binaryData": texts, "immutable": flag}),
    "Secret": mapping({"data": texts, "stringData": texts, "type": text, "immutable": flag}),
    "ServiceAccount": mapping({"automountServiceAccountToken": flag}),
    "EndpointSlice": mapping(
        {
            "addressType": text,
            "endpoints": listing(
                mapping(
                    {
                        "addresses": listing(text),
                        "conditions": mapping({"ready": flag, "serving": flag, "terminating": flag}),
                        "nodeName": text,
                        "zone": text,
                        "targetRef": mapping({"kind": text, "name": text, "namespace": text}),
                    },
                    required=("addresses",),
                )
            ),
            "ports": listing(mapping({"name": text, "port": port, "protocol": text})),
        }
    ),
    "Namespace": mapping({}),
}
KINDS = frozenset((*_SPECS, *_WITHOUT_SPEC))
"""The kinds that are checked here."""

_LABEL_NAMES = frozenset(("Namespace", "Service"))
SERVER_FIELDS = (
    *("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
    *("generation", "managedFields", "selfLink", "ownerReferences", "finalizers"),
)
"""Metadata that an API server writes itself; in a manifest it comes from `kubectl get -o yaml`, and is left out."""


def without_nulls(value: Any) -> Any:
    """`value` without the fields that are null, which an API server takes for absent ones; items of lists stay."""
    if isinstance(value, Mapping):
        return {name: without_nulls(below) for name, below in value.items() if below is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def problems(kind: str, raw: Raw) -> list[FieldProblem]:
    """Everything that is wrong with an object of one of `KINDS`; types first, and words only where types are right."""
    found = [*_META(raw.get("metadata"), ("metadata",)), *_name_problems(kind, raw), *_type_problems(kind, raw)]
    return found or list(_RULES.get(kind, _nothing)(raw))


def type_problems(kind: str, raw: Raw) -> list[FieldProblem]:
    """The fields of an object of one of `KINDS` that are of another type than the API's."""
    return [*_META(raw.get("metadata"), ("metadata",)), *_type_problems(kind, raw)]


def _type_problems(kind: str, raw: Raw) -> Iterator[FieldProblem]:
    if kind not in _SPECS:
        yield from _WITHOUT_SPEC[kind](dict(raw), ())
        return
    spec = raw.get("spec")
    if spec is None and kind != "Service":
        yield FieldProblem(("spec",), "the object has no spec", "add it")
    else:
        yield from _SPECS[kind]({} if spec is None else spec, ("spec",))


def _name_problems(kind: str, raw: Raw) -> Iterator[FieldProblem]:
    meta = raw["metadata"]
    name, namespace = meta.get("name"), meta.get("namespace")
    if not name:
        says = "the object has no name, only a generateName, and it would be made again at each look at the file"
        yield FieldProblem(("metadata",), says, "write metadata.name")
    elif isinstance(name, str):
        right = is_dns_label(name) if kind in _LABEL_NAMES else is_object_name(name)
        if not right:
            dots = "" if kind in _LABEL_NAMES else " and dots"
            hint = f"use lower-case letters, digits, dashes{dots}" + (", at most 63" if not dots else "")
            yield FieldProblem(("metadata", "name"), f"{show(name)} is not a name of a {kind}", hint)
    if isinstance(namespace, str) and namespace and not is_dns_label(namespace):
        hint = "use lower-case letters, digits and dashes"
        yield FieldProblem(("metadata", "namespace"), f"{show(namespace)} is not a namespace", hint)


def _nothing(_: Raw) -> Iterator[FieldProblem]:
    return iter(())


def _pod(raw: Raw) -> Iterator[FieldProblem]:
    yield from pod_problems(raw["spec"], ("spec",))


def _workload(raw: Raw) -> Iterator[FieldProblem]:
    spec = raw["spec"]
    template = spec["template"]
    path: Path = ("spec", "template")
    yield from pod_problems(template["spec"], (*path, "spec"))
    yield from _restarts(template["spec"], path, "Always")
    labels = (template.get("metadata") or {}).get("labels") or {}
    wanted = spec["selector"].get("matchLabels") or {}
    if not wanted and not spec["selector"].get("matchExpressions"):
        hint = "write the labels of the template under spec.selector.matchLabels"
        yield FieldProblem(("spec", "selector"), "an empty selector selects no pods of its own", hint)
    for name, value in wanted.items():
        if labels.get(name) != value:
            found = f"has {labels[name]!r}" if name in labels else "does not have it"
            says = f"the selector asks for label {name}: {value}, and the template {found}"
            hint = f"write {name}: {value} under spec.template.metadata.labels, or change the selector"
            yield FieldProblem(("spec", "selector", "matchLabels", name), says, hint)


def _job(raw: Raw) -> Iterator[FieldProblem]:
    template = raw["spec"]["template"]
    yield from pod_problems(template["spec"], ("spec", "template", "spec"))
    yield from _restarts(template["spec"], ("spec", "template"), "Never", "OnFailure")


def _restarts(spec: Raw, path: Path, *allowed: str) -> Iterator[FieldProblem]:
    policy = spec.get("restartPolicy", "Always")
    if policy not in allowed:
        says = f"pods of this kind restart {' or '.join(allowed)}, and this says {policy}"
        yield FieldProblem((*path, "spec", "restartPolicy"), says, f"write restartPolicy: {allowed[0]}")


def _service(raw: Raw) -> Iterator[FieldProblem]:
    spec = raw.get("spec") or {}
    ports, address = spec.get("ports") or [], spec.get("clusterIP")
    if spec.get("type") == "ExternalName":
        if not spec.get("externalName"):
            yield FieldProblem(("spec", "externalName"), "an ExternalName service needs a name", "add externalName")
        return
    if not ports and address != "None":
        yield FieldProblem(("spec", "ports"), "the service has no port", "add one, or write clusterIP: None")
    yield from _address_problems(address)
    if len(ports) > 1:
        for index, one in enumerate(ports):
            if not one.get("name"):
                says = "a service with more than one port needs a name for each"
                yield FieldProblem(("spec", "ports", index, "name"), says, "add name, such as name: http")
    yield from _twice(ports, lambda one: one.get("name") or None, "name", "the port name")
    yield from _twice(ports, lambda one: (one["port"], one.get("protocol", "TCP")), "port", "the port")
    for index, one in enumerate(ports):
        yield from names_or_numbers(one.get("targetPort"), ("spec", "ports", index, "targetPort"))


def _twice(ports: list[Raw], value: Callable[[Raw], Any], field: str, what: str) -> Iterator[FieldProblem]:
    seen: Counter[Any] = Counter()
    for index, one in enumerate(ports):
        key = value(one)
        seen[key] += 1
        if key is not None and seen[key] == 2:
            says = f"{what} {one[field]} stands twice in one service"
            yield FieldProblem(("spec", "ports", index, field), says, "change or remove one of them")


def _address_problems(address: str | None) -> Iterator[FieldProblem]:
    if address in (None, "", "None"):
        return
    path = ("spec", "clusterIP")
    try:
        parsed = ipaddress.IPv4Address(str(address))
    except ValueError:
        yield FieldProblem(path, f"{show(address)} is not an IPv4 address", "leave it out, or write None")
        return
    for network, use in _OWN_ADDRESSES.items():
        if parsed in network:
            yield FieldProblem(path, f"{address} is {use}", "leave it out, or choose another address")


_OWN_ADDRESSES = {
    ipaddress.IPv4Network("10.96.0.10/32"): "the address of the mesh's DNS",
    ipaddress.IPv4Network("10.244.0.0/16"): "in the range of the pods",
    ipaddress.IPv4Network("127.0.0.0/8"): "a loopback address",
    ipaddress.IPv4Network("0.0.0.0/8"): "no address of a host",
    ipaddress.IPv4Network("224.0.0.0/3"): "no address of a host",
}


def _secret(raw: Raw) -> Iterator[FieldProblem]:
    yield from _base64(raw, "data")


def _config_map(raw: Raw) -> Iterator[FieldProblem]:
    yield from _base64(raw, "binaryData")
    for name in sorted(set(raw.get("data") or {}) & set(raw.get("binaryData") or {})):
        yield FieldProblem(("binaryData", name), f"the key {name} stands in data too", "remove one of them")


def _base64(raw: Raw, field: str) -> Iterator[FieldProblem]:
    for name, value in (raw.get(field) or {}).items():
        try:
            base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):  # the value may be a secret: it is not shown
            hint = "use stringData for plain text" if field == "data" else "use data for plain text"
            yield FieldProblem((field, name), "the value is not base64", hint)


_RULES: Mapping[str, Callable[[Raw], Iterator[FieldProblem]]] = {
    "Pod": _pod,
    "Deployment": _workload,
    "ReplicaSet": _workload,
    "Job": _job,
    "Service": _service,
    "Secret": _secret,
    "ConfigMap": _config_map,
}
