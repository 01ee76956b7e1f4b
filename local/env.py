"""A container's environment, from its `env` and `envFrom`, the pod's fields, and the services. Pure.

Sources: Kubernetes "Define Dependent Environment Variables" ($(NAME) expansion, $$ as escape), "Expose Pod Information
to Containers", "Service: discovering services / environment variables".
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mesh.errors import InvalidInput, NotFound

Object = Mapping[str, Any]
# (kind, namespace, name) -> the object, or None
Lookup = Callable[[str, str, str], Object | None]

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]\Z")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?\Z")


def environment(
    pod: Object,
    container: Object,
    image_env: Mapping[str, str],
    services: Iterable[Object],
    lookup: Lookup,
) -> dict[str, str]:
    """All variables of a container; `pod["status"]` must have the addresses that `fieldRef`s ask for.

    NotFound or InvalidInput name the variable when a ConfigMap, Secret, key or field is missing and not optional.
    """
    spec = pod["spec"]
    namespace = pod["metadata"].get("namespace") or "default"
    links = spec.get("enableServiceLinks") is not False
    result = {**image_env, "HOSTNAME": pod["metadata"]["name"]}
    known = service_variables(namespace, services, links)
    for source in container.get("envFrom") or []:
        known.update(_from_source(source, namespace, container, lookup))
    for item in container.get("env") or []:
        name = item["name"]
        if item.get("valueFrom"):
            value = _from_reference(pod, container, item, namespace, lookup)
            if value is None:
                continue
        else:
            value = expand(str(item.get("value") or ""), known)
        known[name] = value
    result.update(known)
    return result


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the value; an unknown name stays as written; `$$` is one dollar."""

    def one(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return known.get(match.group(1), match.group(0))

    return _REFERENCE.sub(one, text)


def service_variables(namespace: str, services: Iterable[Object], links: bool) -> dict[str, str]:
    """`<NAME>_SERVICE_HOST` and the others, for the namespace's services, and always for `default/kubernetes`."""
    found: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        own = metadata.get("namespace") or "default"
        is_api = (own, metadata["name"]) == ("default", "kubernetes")
        if not is_api and not (links and own == namespace):
            continue
        address, ports = spec.get("clusterIP") or "None", spec.get("ports") or []
        if address == "None" or not ports:
            continue
        prefix = metadata["name"].upper().replace("-", "_")
        found[f"{prefix}_SERVICE_HOST"] = address
        found[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        found[f"{prefix}_PORT"] = _url(ports[0], address)
        for port in ports:
            protocol = (port.get("protocol") or "TCP").upper()
            link = f"{prefix}_PORT_{port['port']}_{protocol}"
            if port.get("name"):
                found[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
            found[link] = _url(port, address)
            found |= {f"{link}_PROTO": protocol.lower(), f"{link}_PORT": str(port["port"]), f"{link}_ADDR": address}
    return found


def _url(port: Object, address: str) -> str:
    return f"{(port.get('protocol') or 'TCP').lower()}://{address}:{port['port']}"


def field_value(pod: Object, path: str, field: str) -> str:
    """The pod's field, as the downward API gives it."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if match := _KEYED_FIELD.match(path):
        return str((metadata.get(match.group(1)) or {}).get(match.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f"{name}={_quoted(str(value))}" for name, value in sorted(pairs.items()))
    simple: dict[str, Callable[[], Any]] = {
        "metadata.name": lambda: metadata["name"],
        "metadata.namespace": lambda: metadata.get("namespace") or "default",
        "metadata.uid": lambda: metadata.get("uid") or "",
        "spec.nodeName": lambda: spec.get("nodeName") or "",
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName") or "default",
        "status.podIP": lambda: status.get("podIP") or "",
        "status.podIPs": lambda: ",".join(item["ip"] for item in status.get("podIPs") or []),
        "status.hostIP": lambda: status.get("hostIP") or "",
        "status.hostIPs": lambda: status.get("hostIP") or "",
    }
    if path not in simple:
        raise InvalidInput(f"{path!r} is not a field that a pod can refer to", field=field, hint=", ".join(simple))
    return str(simple[path]())


def resource_value(container: Object, reference: Mapping[str, Any], field: str) -> str:
    """`limits.cpu` and the like, in units of the divisor, rounded up; without a limit, what the machine has."""
    kind, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    quantity = (resources.get(kind) or {}).get(resource)
    if quantity is None:
        quantity = _machine(resource) if kind == "limits" else "0"
    amount, unit = quantity_value(str(quantity), field), quantity_value(str(reference.get("divisor") or "1"), field)
    # Thousandths, so that the division is exact for milli-CPUs.
    return str(-(-round(amount * 1000) // max(1, round((unit or 1) * 1000))))


def quantity_value(text: str, field: str) -> float:
    """A Kubernetes quantity (`250m`, `1Gi`, `2`) as a number."""
    match = _QUANTITY.match(text)
    if not match:
        raise InvalidInput(f"{text!r} is not a quantity", field=field, hint="such as 250m, 1, 64Mi")
    suffix = match.group(2) or ""
    return float(match.group(1)) / 1000 if suffix == "m" else float(match.group(1)) * _SUFFIXES[suffix]


def decoded(secret: Object) -> dict[str, bytes]:
    """A Secret's values."""
    data = {name: base64.b64decode(value or "") for name, value in (secret.get("data") or {}).items()}
    return data | {name: str(value).encode() for name, value in (secret.get("stringData") or {}).items()}


def content(config_map: Object) -> dict[str, bytes]:
    """A ConfigMap's values, text and binary."""
    data = {name: str(value).encode() for name, value in (config_map.get("data") or {}).items()}
    return data | {name: base64.b64decode(value) for name, value in (config_map.get("binaryData") or {}).items()}


def _machine(resource: str) -> str:
    if resource == "cpu":
        return str(os.cpu_count() or 1)
    if resource == "memory":
        return str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return "0"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _from_source(source: Object, namespace: str, container: Object, lookup: Lookup) -> dict[str, str]:
    kind, reference = (
        ("ConfigMap", source["configMapRef"])
        if source.get("configMapRef")
        else ("Secret", source.get("secretRef") or {})
    )
    found = lookup(kind, namespace, reference.get("name") or "")
    if found is None:
        if reference.get("optional"):
            return {}
        raise NotFound(
            f"container {container['name']}: {kind} {namespace}/{reference.get('name')} does not exist", field="envFrom"
        )
    data = content(found) if kind == "ConfigMap" else decoded(found)
    prefix = source.get("prefix") or ""
    return {
        prefix + name: value.decode(errors="replace")
        for name, value in data.items()
        if _VARIABLE.match(prefix + name)  # the kubelet skips keys that cannot be names
    }


def _from_reference(pod: Object, container: Object, item: Object, namespace: str, lookup: Lookup) -> str | None:
    """The value, or None if what is referred to is missing and optional."""
    reference = item["valueFrom"]
    field = f"env[{item['name']}].valueFrom"
    if reference.get("fieldRef"):
        return field_value(pod, reference["fieldRef"]["fieldPath"], field)
    if reference.get("resourceFieldRef"):
        return _of_resource(pod, container, reference["resourceFieldRef"], field)
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        wanted = reference.get(key)
        if not wanted:
            continue
        found = lookup(kind, namespace, wanted.get("name") or "")
        data = {} if found is None else content(found) if kind == "ConfigMap" else decoded(found)
        if wanted["key"] in data:
            return data[wanted["key"]].decode(errors="replace")
        if wanted.get("optional"):
            return None
        missing = "does not exist" if found is None else f"has no key {wanted['key']!r}"
        raise NotFound(f"container {container['name']}: {kind} {namespace}/{wanted.get('name')} {missing}", field=field)
    raise InvalidInput(f"container {container['name']}: no known source in valueFrom", field=field)


def _of_resource(pod: Object, container: Object, reference: Mapping[str, Any], field: str) -> str:
    name = reference.get("containerName") or container["name"]
    spec = pod["spec"]
    everyone = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    owner = next((one for one in everyone if one["name"] == name), None)
    if owner is None:
        raise InvalidInput(f"the pod has no container {name!r}", field=f"{field}.resourceFieldRef.containerName")
    return resource_value(owner, reference, field)
