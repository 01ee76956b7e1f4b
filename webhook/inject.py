"""What injection does to a pod. Pure: a pod in, a new pod out, the given one untouched.

    decide(pod, namespace, namespace_labels, config)   whether, and why     (webhook/decision.py)
    inject(pod, config)                                the injected pod
    advice(pod, config)                                sentences for whoever created the pod

Pods are dicts, Kubernetes' JSON; `check_pod` (webhook/shape.py) has refused those that are not pods at all.
Nothing that the result shares with the given pod is ever changed, so the two can be compared cheaply.
Source: Istio's injection templates `sidecar` and `gateway` (order of containers, labels, annotations, names).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mesh import ports
from mesh.annotations import (
    DEFAULT_CONTAINER,
    DEFAULT_LOGS_CONTAINER,
    REVISION,
    PodOptions,
    parse_options,
    unknown_annotations,
)
from mesh.objects import SIDECAR_STATUS_ANNOTATION
from mesh.settings import ProxyConfig
from webhook.config import InjectionConfig, proxy_config
from webhook.decision import PROXY_CONTAINER, Decision, decide, is_injected
from webhook.overlay import overlay
from webhook.probes import rewrite
from webhook.sidecar import INIT_CONTAINER, Wanted, init_container, proxy_container, volumes

__all__ = ["Decision", "advice", "decide", "inject", "is_injected", "pod_name"]

Raw = dict[str, Any]

DEFAULT_GRACE_SECONDS = 30
TLS_MODE_LABEL = "security.istio.io/tlsMode"
NAME_LABEL = "service.istio.io/canonical-name"
REVISION_LABEL = "service.istio.io/canonical-revision"
SCRAPE = "prometheus.io/scrape"
METRICS_PATH = "/stats/prometheus"
LOW_PORTS = "net.ipv4.ip_unprivileged_port_start"

_LONGEST_LABEL = 63


def inject(pod: Mapping[str, Any], config: InjectionConfig, about: str = "", workload: str = "") -> Raw:
    """The pod with its proxy; a pod that has one already comes back as it is.

    `workload` is the name of what the pod is made from, where its owner references do not say so yet.
    ObjectErrors when an annotation does not parse; it calls the pod `about`, or by its name.
    """
    if is_injected(pod):
        return dict(pod)
    options, wanted = _wanted(pod, config, about)
    gateway = options.template == "gateway"
    spec: Raw = dict(pod["spec"])
    containers, inits = list(spec.get("containers") or ()), list(spec.get("initContainers") or ())
    own = next((container for container in (*containers, *inits) if container["name"] == PROXY_CONTAINER), None)

    asked: Raw = {}
    if not gateway and options.rewrite_probes:
        containers = [_rewritten(container, wanted, asked) for container in containers]
        # Of the init containers only those that stay can have probes.
        inits = [_rewritten(c, wanted, asked) if c.get("restartPolicy") == "Always" else c for c in inits]
    proxy = proxy_container(wanted, asked)
    if own is not None:
        proxy = overlay(proxy, own)

    if gateway:
        containers = _in_place(containers, proxy)
        spec["securityContext"] = _allow_low_ports(spec.get("securityContext") or {})
    else:
        containers = [c for c in containers if c["name"] != PROXY_CONTAINER]
        inits = [c for c in inits if c["name"] not in (INIT_CONTAINER, PROXY_CONTAINER)]
        # First, so that every other container, init containers of the app included, has the network of the mesh.
        inits = [init_container(wanted), *([proxy] if wanted.native else []), *inits]
        containers = containers if wanted.native else [proxy, *containers]
    added = volumes()
    taken = {volume["name"] for volume in added}
    spec["containers"] = containers
    if inits:
        spec["initContainers"] = inits
    spec["volumes"] = [*(v for v in spec.get("volumes") or () if v["name"] not in taken), *added]
    return {**pod, "metadata": _metadata(pod, wanted, workload, gateway=gateway), "spec": spec}


def advice(pod: Mapping[str, Any], config: InjectionConfig) -> list[str]:
    """What the pod asks for and does not get: warnings that `kubectl apply` shows."""
    options, wanted = _wanted(pod, config)
    found = unknown_annotations(pod["metadata"].get("annotations") or {})
    known = {field.alias for field in ProxyConfig.model_fields.values()}
    found.extend(
        f"annotation proxy.istio.io/config: {name} is not acted on"
        for name in options.proxy_config or ()
        if name not in known
    )
    if wanted.proxy["holdApplicationUntilProxyStarts"] and not wanted.native and options.template == "sidecar":
        found.append(
            "holdApplicationUntilProxyStarts needs a native sidecar: the app may start before its proxy "
            '(remove sidecar.istio.io/nativeSidecar: "false")'
        )
    if options.template == "sidecar":
        found.extend(
            f"container {container['name']} runs as user {ports.PROXY_UID}, which is the proxy's: its connections "
            "bypass the mesh"
            for container in pod["spec"]["containers"]
            if container["name"] != PROXY_CONTAINER and _user(container, pod["spec"]) == ports.PROXY_UID
        )
    return found


def pod_name(pod: Mapping[str, Any], namespace: str = "") -> str:
    """`Pod default/reviews-v1-6f9d...` for messages; a pod that has no name yet has that of its generator."""
    meta = pod["metadata"]
    name = meta.get("name") or (meta.get("generateName") or "") + "*"
    namespace = namespace or meta.get("namespace") or ""
    return f"Pod {namespace}/{name}" if namespace else f"Pod {name}"


def _wanted(pod: Mapping[str, Any], config: InjectionConfig, about: str = "") -> tuple[PodOptions, Wanted]:
    about = about or pod_name(pod)
    options = parse_options(pod["metadata"].get("annotations") or {}, about)
    native = config.settings.heddle.native_sidecars if options.native_sidecar is None else options.native_sidecar
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    return options, Wanted(
        config=config,
        options=options,
        proxy=proxy_config(config, options, about),
        grace_seconds=DEFAULT_GRACE_SECONDS if grace is None else int(grace),
        native=native and options.template == "sidecar",
    )


def _user(container: Mapping[str, Any], spec: Mapping[str, Any]) -> object:
    own, pods = container.get("securityContext") or {}, spec.get("securityContext") or {}
    return own.get("runAsUser", pods.get("runAsUser"))


def _rewritten(container: Raw, wanted: Wanted, asked: Raw) -> Raw:
    return container if container["name"] == PROXY_CONTAINER else rewrite(container, wanted.agent_port, asked)


def _in_place(containers: list[Raw], proxy: Raw) -> list[Raw]:
    if all(container["name"] != PROXY_CONTAINER for container in containers):
        return [*containers, proxy]
    return [proxy if container["name"] == PROXY_CONTAINER else container for container in containers]


def _allow_low_ports(context: Mapping[str, Any]) -> Raw:
    """A gateway listens on 80 and 443 as user 1337, without a capability; the sysctl is a safe one since 1.22."""
    sysctls = context.get("sysctls") or []
    if any(sysctl.get("name") == LOW_PORTS for sysctl in sysctls):
        return dict(context)
    return {**context, "sysctls": [*sysctls, {"name": LOW_PORTS, "value": "0"}]}


def _metadata(pod: Mapping[str, Any], wanted: Wanted, workload: str, *, gateway: bool) -> Raw:
    meta = pod["metadata"]
    labels, annotations = dict(meta.get("labels") or {}), dict(meta.get("annotations") or {})
    labels.setdefault(TLS_MODE_LABEL, "istio")
    labels.setdefault(
        NAME_LABEL,
        labels.get("app.kubernetes.io/name") or labels.get("app") or _as_label(workload or _workload_name(pod)),
    )
    labels.setdefault(REVISION_LABEL, labels.get("app.kubernetes.io/version") or labels.get("version") or "latest")
    annotations.setdefault(REVISION, wanted.config.revision)
    app = next((c["name"] for c in pod["spec"].get("containers") or () if c["name"] != PROXY_CONTAINER), None)
    if app:
        annotations.setdefault(DEFAULT_CONTAINER, app)
        annotations.setdefault(DEFAULT_LOGS_CONTAINER, app)
    if SCRAPE not in annotations:  # an app with metrics of its own is scraped as it asks to be
        annotations |= {
            SCRAPE: "true",
            "prometheus.io/port": str(wanted.agent_port),
            "prometheus.io/path": METRICS_PATH,
        }
    annotations[SIDECAR_STATUS_ANNOTATION] = _status(wanted, gateway=gateway)
    return {**meta, "labels": labels, "annotations": annotations}


def _status(wanted: Wanted, *, gateway: bool) -> str:
    native = [PROXY_CONTAINER] if wanted.native else []
    return json.dumps(
        {
            "initContainers": None if gateway else [INIT_CONTAINER, *native],
            "containers": None if wanted.native else [PROXY_CONTAINER],
            "volumes": [volume["name"] for volume in volumes()],
            "imagePullSecrets": None,
            "revision": wanted.config.revision,
        },
        separators=(",", ":"),
    )


_CRON_SUFFIX = re.compile(r"-\d{8,10}\Z")


def _workload_name(pod: Mapping[str, Any]) -> str:
    """The name of what a person wrote: the Deployment behind a ReplicaSet, the CronJob behind a Job."""
    meta = pod["metadata"]
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return str(meta.get("name") or meta.get("generateName") or "")
    name = str(owner.get("name", ""))
    if owner.get("kind") == "ReplicaSet":
        return name.removesuffix("-" + str((meta.get("labels") or {}).get("pod-template-hash", "")))
    return _CRON_SUFFIX.sub("", name) if owner.get("kind") == "Job" else name


def _as_label(name: str) -> str:
    return name[:_LONGEST_LABEL].rstrip("-._") or "unknown"
