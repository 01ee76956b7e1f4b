"""Which fields of a pod or service the embedded engine does not honour, for a warning. Pure.

The table below is what IS honoured; whatever else a manifest says is named. `None` means: with all that is below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Tree = Mapping[str, "Tree | None"]


def _leaves(names: str) -> dict[str, Tree | None]:
    return dict.fromkeys(names.split())


_PROBE: Tree = _leaves(
    "initialDelaySeconds periodSeconds timeoutSeconds successThreshold failureThreshold terminationGracePeriodSeconds"
    " httpGet tcpSocket exec grpc"
)
_HOOK: Tree = _leaves("exec httpGet sleep")
_CONTAINER: Tree = {
    # imagePullPolicy and ports say nothing that could be done otherwise here: no image is ever pulled.
    **_leaves("name image command args workingDir env envFrom imagePullPolicy terminationMessagePath restartPolicy"),
    **_leaves("terminationMessagePolicy"),
    "ports": _leaves("name containerPort protocol"),
    "volumeMounts": _leaves("name mountPath readOnly subPath subPathExpr"),
    "securityContext": _leaves(
        "runAsUser runAsGroup runAsNonRoot privileged allowPrivilegeEscalation readOnlyRootFilesystem capabilities"
    ),
    "startupProbe": _PROBE,
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "lifecycle": {"preStop": _HOOK, "postStart": _HOOK},
}
_SOURCES: Tree = _leaves("configMap secret downwardAPI serviceAccountToken")
_POD: Tree = {
    **_leaves("restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds serviceAccountName serviceAccount"),
    **_leaves("automountServiceAccountToken nodeName hostname subdomain hostAliases hostNetwork dnsPolicy dnsConfig"),
    **_leaves("enableServiceLinks schedulerName"),
    "containers": _CONTAINER,
    "initContainers": _CONTAINER,
    "securityContext": _leaves("runAsUser runAsGroup runAsNonRoot supplementalGroups fsGroup sysctls"),
    "volumes": {
        **_leaves("name configMap secret downwardAPI hostPath"),
        "emptyDir": _leaves("medium"),
        "projected": {"defaultMode": None, "sources": _SOURCES},
    },
}
_SERVICE: Tree = {
    **_leaves("selector clusterIP clusterIPs type externalName publishNotReadyAddresses ipFamilies ipFamilyPolicy"),
    **_leaves("internalTrafficPolicy"),
    "ports": _leaves("name port targetPort protocol nodePort appProtocol"),
}

# Values that ask for what happens anyway.
_AS_IT_IS: Mapping[str, tuple[Any, ...]] = {
    "spec.hostPID": (False,),
    "spec.hostIPC": (False,),
    "spec.hostUsers": (True,),
    "spec.shareProcessNamespace": (False,),
    "spec.preemptionPolicy": ("PreemptLowerPriority",),
    "spec.sessionAffinity": ("None",),
    "spec.containers[].tty": (False,),
    "spec.containers[].stdin": (False,),
    "spec.containers[].securityContext.procMount": ("Default",),
    # The runtime here is Heddle's own, and its default is no filter; a profile that is named would be missed.
    "spec.containers[].securityContext.seccompProfile": ({"type": "RuntimeDefault"}, {"type": "Unconfined"}),
    "spec.initContainers[].securityContext.seccompProfile": ({"type": "RuntimeDefault"}, {"type": "Unconfined"}),
    "spec.securityContext.seccompProfile": ({"type": "RuntimeDefault"}, {"type": "Unconfined"}),
}


def unhonoured(where: str, pod: Mapping[str, Any]) -> list[str]:
    """Sentences for a person about a pod or pod template in the object `where`; none if all of it is honoured."""
    found = []
    paths = pod_fields(pod)
    if paths:
        found.append(f"{where}: not honoured on one machine: {', '.join(paths)}")
    mounts = _writable_host_paths(pod.get("spec") or {})
    if mounts:
        found.append(
            f"{where}: hostPath volumes are read-only here, so that nothing is written to this machine: {mounts}"
        )
    return found


def pod_fields(pod: Mapping[str, Any]) -> list[str]:
    """Paths such as `spec.containers[].resources`, each once, in the order of the manifest."""
    return _unique(_walk(pod.get("spec") or {}, _POD, "spec"))


def service_fields(service: Mapping[str, Any]) -> list[str]:
    """The same for a Service."""
    return _unique(_walk(service.get("spec") or {}, _SERVICE, "spec"))


def _writable_host_paths(spec: Mapping[str, Any]) -> str:
    host_paths = {volume["name"] for volume in spec.get("volumes") or [] if volume.get("hostPath")}
    mounts = (
        mount
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
        for mount in container.get("volumeMounts") or []
    )
    return ", ".join(sorted({m["name"] for m in mounts if m["name"] in host_paths and not m.get("readOnly")}))


def _walk(value: Any, known: Tree | None, path: str) -> Iterator[str]:
    if known is None or value is None:
        return
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, known, f"{path}[]")
        return
    if not isinstance(value, Mapping):
        return
    for name, below in value.items():
        place = f"{path}.{name}"
        if name in known:
            yield from _walk(below, known[name], place)
        elif not _asks_nothing(place, below):
            yield place


def _asks_nothing(path: str, value: Any) -> bool:
    return value in (None, "", [], {}) or value in _AS_IT_IS.get(path, ())


def _unique(paths: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(paths))
