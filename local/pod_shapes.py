"""The types of a pod's fields, and what the API reference says of a pod in words. Pure; used by `local.shapes`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
    whole,
)
from mesh.istio.rules import is_dns_label
from mesh.problems import FieldProblem, Path, show

_ANY_MAPPING = mapping({})
_ID = whole(0, 2**31 - 1)
_HTTP = mapping(
    {
        "path": text,
        "port": port_or_name,
        "host": text,
        "scheme": one_of("HTTP", "HTTPS"),
        "httpHeaders": listing(mapping({"name": text, "value": text}, required=("name",))),
    },
    required=("port",),
)
_EXEC = mapping({"command": listing(text)})
_SECONDS = at_least(0)
_PROBE = mapping(
    {
        "exec": _EXEC,
        "httpGet": _HTTP,
        "tcpSocket": mapping({"port": port_or_name, "host": text}, required=("port",)),
        "grpc": mapping({"port": port, "service": text}, required=("port",)),
        "initialDelaySeconds": _SECONDS,
        "periodSeconds": _SECONDS,
        "timeoutSeconds": _SECONDS,
        "successThreshold": _SECONDS,
        "failureThreshold": _SECONDS,
        "terminationGracePeriodSeconds": _SECONDS,
    }
)
_HOOK = mapping({"exec": _EXEC, "httpGet": _HTTP, "sleep": mapping({"seconds": _SECONDS}, required=("seconds",))})
_KEY_OF = mapping({"name": text, "key": text, "optional": flag}, required=("name", "key"))
_ENV = mapping(
    {
        "name": text,
        "value": text,
        "valueFrom": mapping(
            {
                "fieldRef": mapping({"fieldPath": text}, required=("fieldPath",)),
                "resourceFieldRef": mapping({"resource": text}, required=("resource",)),
                "configMapKeyRef": _KEY_OF,
                "secretKeyRef": _KEY_OF,
            }
        ),
    },
    required=("name",),
)
_FROM = mapping({"name": text, "optional": flag}, required=("name",))
_CONTAINER = mapping(
    {
        "name": text,
        "image": text,
        "command": listing(text),
        "args": listing(text),
        "workingDir": text,
        "env": listing(_ENV),
        "envFrom": listing(mapping({"prefix": text, "configMapRef": _FROM, "secretRef": _FROM})),
        "ports": listing(
            mapping(
                {"name": text, "containerPort": port, "protocol": one_of("TCP", "UDP", "SCTP")},
                required=("containerPort",),
            )
        ),
        "volumeMounts": listing(
            mapping(
                {"name": text, "mountPath": text, "readOnly": flag, "subPath": text, "subPathExpr": text},
                required=("name", "mountPath"),
            )
        ),
        "securityContext": mapping(
            {
                "runAsUser": _ID,
                "runAsGroup": _ID,
                "runAsNonRoot": flag,
                "privileged": flag,
                "allowPrivilegeEscalation": flag,
                "readOnlyRootFilesystem": flag,
                "capabilities": mapping({"add": listing(text), "drop": listing(text)}),
            }
        ),
        "startupProbe": _PROBE,
        "readinessProbe": _PROBE,
        "livenessProbe": _PROBE,
        "lifecycle": mapping({"preStop": _HOOK, "postStart": _HOOK}),
        "resources": mapping({"limits": _ANY_MAPPING, "requests": _ANY_MAPPING}),
        "restartPolicy": text,
    },
    required=("name", "image"),
)
_MODE = whole(0, 0o777)
_ITEMS = listing(mapping({"key": text, "path": text, "mode": _MODE}, required=("key", "path")))
_DOWNWARD = listing(
    mapping(
        {"path": text, "mode": _MODE, "fieldRef": mapping({"fieldPath": text}, required=("fieldPath",))},
        required=("path",),
    )
)
_SOURCE: dict[str, Check] = {
    "configMap": mapping({"name": text, "items": _ITEMS, "optional": flag}, required=("name",)),
    "secret": mapping({"name": text, "items": _ITEMS, "optional": flag}, required=("name",)),
    "downwardAPI": mapping({"items": _DOWNWARD}),
    "serviceAccountToken": mapping(
        {"path": text, "audience": text, "expirationSeconds": at_least(600)}, required=("path",)
    ),
}
_VOLUME = mapping(
    {
        "name": text,
        "emptyDir": mapping({"medium": text}),
        "hostPath": mapping({"path": text, "type": text}, required=("path",)),
        "configMap": mapping(
            {"name": text, "items": _ITEMS, "optional": flag, "defaultMode": _MODE}, required=("name",)
        ),
        "secret": mapping(
            {"secretName": text, "items": _ITEMS, "optional": flag, "defaultMode": _MODE}, required=("secretName",)
        ),
        "downwardAPI": mapping({"items": _DOWNWARD, "defaultMode": _MODE}),
        "projected": mapping({"sources": listing(mapping(_SOURCE)), "defaultMode": _MODE}),
    },
    required=("name",),
)

POD_SPEC: Check = mapping(
    {
        "containers": listing(_CONTAINER, least=1),
        "initContainers": listing(_CONTAINER),
        "volumes": listing(_VOLUME),
        "restartPolicy": one_of("Always", "OnFailure", "Never"),
        "serviceAccountName": text,
        "serviceAccount": text,
        "automountServiceAccountToken": flag,
        "enableServiceLinks": flag,
        "terminationGracePeriodSeconds": _SECONDS,
        "activeDeadlineSeconds": at_least(1),
        "hostNetwork": flag,
        "hostname": text,
        "subdomain": text,
        "nodeName": text,
        "dnsPolicy": text,
        "dnsConfig": mapping(
            {
                "nameservers": listing(text),
                "searches": listing(text),
                "options": listing(mapping({"name": text, "value": text})),
            }
        ),
        "hostAliases": listing(mapping({"ip": text, "hostnames": listing(text)}, required=("ip",))),
        "securityContext": mapping(
            {
                "runAsUser": _ID,
                "runAsGroup": _ID,
                "runAsNonRoot": flag,
                "fsGroup": _ID,
                "supplementalGroups": listing(_ID),
                "sysctls": listing(mapping({"name": text, "value": text}, required=("name", "value"))),
            }
        ),
    },
    required=("containers",),
)


def pod_problems(spec: Mapping[str, Any], path: Path) -> Iterator[FieldProblem]:
    """What is wrong with a pod's spec whose types are right; `path` leads to it."""
    volumes = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume["name"] in volumes:
            says = f"a volume {show(volume['name'])} stands twice in one pod"
            yield FieldProblem((*path, "volumes", index, "name"), says, "rename or remove one of them")
        volumes.add(volume["name"])
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            place = (*path, field, index)
            yield from _container(container, place, names, volumes)
            if container.get("restartPolicy", "Always") != "Always" or (
                field == "containers" and "restartPolicy" in container
            ):
                says = "only an init container has a restartPolicy of its own, and it can be Always alone"
                yield FieldProblem((*place, "restartPolicy"), says, "remove it")
            names.add(container["name"])


def _container(container: Mapping[str, Any], path: Path, names: set[str], volumes: set[str]) -> Iterator[FieldProblem]:
    name = container["name"]
    if not is_dns_label(name):
        hint = "use lower-case letters, digits and dashes, at most 63"
        yield FieldProblem((*path, "name"), f"{show(name)} is not the name of a container", hint)
    if name in names:
        says = f"a container {show(name)} stands twice in one pod"
        yield FieldProblem((*path, "name"), says, "rename or remove one of them")
    if not container["image"]:
        yield FieldProblem((*path, "image"), "the image is empty", "name an image")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] not in volumes:
            says = f"the pod has no volume {show(mount['name'])}"
            yield FieldProblem((*path, "volumeMounts", index, "name"), says, "add it under volumes of the pod's spec")
    for field in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(field)
        if probe:
            yield from _probe(probe, (*path, field))


def _probe(probe: Mapping[str, Any], path: Path) -> Iterator[FieldProblem]:
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if name in probe]
    if len(handlers) != 1:
        said = "none" if not handlers else " and ".join(handlers)
        yield FieldProblem(
            path, f"a probe does one thing, and this has {said}", "write httpGet, tcpSocket, exec or grpc"
        )
    for name in ("httpGet", "tcpSocket"):
        if name in probe:
            yield from names_or_numbers(probe[name]["port"], (*path, name, "port"))
