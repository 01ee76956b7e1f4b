"""What injection does to a pod. Pure: a pod in, a new pod out, the given one untouched.

    decide(pod, namespace, namespace_labels, config)   whether, and why     (webhook/decision.py)
    inject(pod, config)                                the injected pod
    advice(pod, config)                                sentences for whoever created the pod

Pods are dicts, Kubernetes' JSON; `check_pod` (webhook/shape.py) has refused those that are not pods at all.
Nothing that the result shares with the given pod is ever changed, so the two can be compared cheaply.
Source: Istio's injection templates `sidecar` and `gateway` (order of containers, labels, annotations, names).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh import ports
from mesh.annotations import parse_options, unheeded_annotations, unheeded_labels
from mesh.errors import InvalidInput
from mesh.objects import PROXY_CONTAINER
from mesh.problems import FieldProblem, ObjectErrors
from mesh.settings import ProxyConfig
from mesh.workloads import workload_name
from webhook.config import InjectionConfig, proxy_config
from webhook.decision import Decision, decide, is_injected
from webhook.gate import GATE_CONTAINER
from webhook.injector import GATEWAY, SIDECAR, chosen_templates
from webhook.merge import merge_pod
from webhook.metadata import annotations_of, as_label, labels_of, status_of
from webhook.overlay import overlay, overrides
from webhook.probes import rewrite
from webhook.prometheus import merged, unreadable_port
from webhook.sidecar import INIT_CONTAINER, Wanted, init_container, is_own_image, proxy_container, volumes
from webhook.templates import Values

__all__ = ["Decision", "advice", "decide", "inject", "is_injected", "pod_name"]

Raw = dict[str, Any]

DEFAULT_GRACE_SECONDS = 30
LOW_PORTS = "net.ipv4.ip_unprivileged_port_start"
OURS = (INIT_CONTAINER, GATE_CONTAINER, PROXY_CONTAINER)


def inject(pod: Mapping[str, Any], config: InjectionConfig, about: str = "", workload: str = "") -> Raw:
    """The pod with its proxy; a pod that has one already comes back as it is.

    `workload` is the name of what the pod is made from, where its owner references do not say so yet.
    ObjectErrors when an annotation does not parse; it calls the pod `about`, or by its name.
    """
    if is_injected(pod):
        return dict(pod)
    wanted = _wanted(pod, config, about or pod_name(pod))
    workload = workload or workload_name(pod)
    patched, patches = _with_templates(pod, wanted, workload, about or pod_name(pod))
    if not wanted.template:
        return patched
    return _with_proxy(pod, patched, patches, wanted, workload)


def _with_templates(pod: Mapping[str, Any], wanted: Wanted, workload: str, about: str) -> tuple[Raw, list[Raw]]:
    """The pod with the templates of one's own laid over it, and what these say about the containers of the proxy."""
    patched, of_proxy = dict(pod), []
    for template in wanted.templates:
        try:
            patch = template.patch(_values(pod, wanted, workload))
        except InvalidInput as error:
            path = ("metadata", "annotations", "inject.istio.io/templates")
            raise ObjectErrors(about, [FieldProblem(path, error.message, error.hint or "")]) from None
        if wanted.template:
            spec: Raw = dict(patch.get("spec") or {})
            for place in ("containers", "initContainers"):
                items = spec.get(place) or []
                of_proxy += [item for item in items if item["name"] in OURS]
                if place in spec:
                    spec[place] = [item for item in items if item["name"] not in OURS]
            patch = {**patch, "spec": spec}
        patched = merge_pod(patched, patch)
    return patched, of_proxy


def _values(pod: Mapping[str, Any], wanted: Wanted, workload: str) -> Values:
    meta, config = pod["metadata"], wanted.config
    return {
        "pod.name": str(meta.get("name") or ""),
        "pod.namespace": str(meta.get("namespace") or ""),
        "pod.serviceAccount": str(pod["spec"].get("serviceAccountName") or "default"),
        "pod.workload": as_label(workload),
        "pod.labels": meta.get("labels") or {},
        "pod.annotations": meta.get("annotations") or {},
        "mesh.trustDomain": config.settings.trust_domain,
        "mesh.revision": config.revision,
        "mesh.controlNamespace": config.control_namespace,
        "proxy.image": wanted.image,
    }


def _with_proxy(before: Mapping[str, Any], pod: Raw, patches: list[Raw], wanted: Wanted, workload: str) -> Raw:
    options, gateway = wanted.options, wanted.template == GATEWAY
    spec: Raw = dict(pod["spec"])
    containers, inits = list(spec.get("containers") or ()), list(spec.get("initContainers") or ())
    own = {c["name"]: c for c in (*inits, *containers) if c["name"] in OURS}
    own_text = overrides(
        [c for c in containers if c["name"] in OURS], [c for c in inits if c["name"] in OURS and not gateway]
    )

    asked: Raw = {}
    if not gateway and options.rewrite_probes:
        containers = [_rewritten(container, wanted, asked) for container in containers]
        # Of the init containers only those that stay can have probes and hooks.
        inits = [_rewritten(c, wanted, asked) if c.get("restartPolicy") == "Always" else c for c in inits]
    merge = wanted.config.settings.enable_prometheus_merge if options.merge_metrics is None else options.merge_metrics
    annotations, scrape = merged(pod["metadata"].get("annotations") or {}, wanted.agent_port, merge=merge)

    def customised(container: Raw) -> Raw:
        for patch in patches:
            if patch["name"] == container["name"]:
                container = overlay(container, patch)
        return overlay(container, own[container["name"]]) if container["name"] in own else container

    proxy = customised(proxy_container(wanted, asked, "" if gateway else scrape, workload))
    if gateway:
        containers = _in_place(containers, proxy)
        spec["securityContext"] = _allow_low_ports(spec.get("securityContext") or {})
    else:
        containers = [c for c in containers if c["name"] not in OURS]
        inits = [c for c in inits if c["name"] not in OURS]
        init = customised(init_container(wanted, proxy.get("securityContext") or {}))
        # First, so that every other container, init containers of the app included, has the network of the mesh.
        inits = [init, *([proxy] if wanted.native else []), *inits]
        containers = containers if wanted.native else [proxy, *containers]
    added = volumes(wanted)
    taken = {volume["name"] for volume in added}
    spec["containers"] = containers
    if inits:
        spec["initContainers"] = inits
    spec["volumes"] = [*(v for v in spec.get("volumes") or () if v["name"] not in taken), *added]
    if wanted.config.injector.image_pull_secrets:
        secrets = [{"name": name} for name in wanted.config.injector.image_pull_secrets]
        spec = merge_pod({"spec": spec}, {"spec": {"imagePullSecrets": secrets}})["spec"]
    metadata = {
        **pod["metadata"],
        "labels": labels_of(pod, workload),
        "annotations": annotations_of(annotations, pod, wanted, own_text) | status_of(before["spec"], spec, wanted),
    }
    return {**pod, "metadata": metadata, "spec": spec}


def advice(pod: Mapping[str, Any], config: InjectionConfig) -> list[str]:
    """What the pod asks for and does not get: warnings that `kubectl apply` shows."""
    wanted = _wanted(pod, config, pod_name(pod))
    options = wanted.options
    found = unheeded_annotations(pod["metadata"].get("annotations") or {})
    found += unheeded_labels(pod["metadata"].get("labels") or {})
    known = {field.alias for field in ProxyConfig.model_fields.values()}
    found.extend(
        f"annotation proxy.istio.io/config: {name} is not acted on"
        for name in options.proxy_config or ()
        if name not in known
    )
    if options.proxy_image and not is_own_image(options.proxy_image):
        found.append(
            f"annotation sidecar.istio.io/proxyImage: {options.proxy_image} is taken for Istio's own; "
            f"the proxy runs {wanted.image}"
        )
    if wanted.lacks_type and not is_own_image(options.proxy_image or ""):
        found.append(
            f"image type {wanted.image_type}: the mesh's image has no such variant (meshConfig heddle.imageTypes names "
            f"those that there are); the proxy runs {wanted.image}"
        )
    if wrong := unreadable_port(pod["metadata"].get("annotations") or {}):
        found.append(wrong)
    if wanted.template == SIDECAR:
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


def _wanted(pod: Mapping[str, Any], config: InjectionConfig, about: str) -> Wanted:
    injector = config.injector
    options = parse_options(pod["metadata"].get("annotations") or {}, about, injector.options)
    try:
        built_in, others = chosen_templates(injector, options.templates or injector.default_templates)
    except InvalidInput as error:
        path = ("metadata", "annotations", "inject.istio.io/templates")
        raise ObjectErrors(about, [FieldProblem(path, error.message, error.hint or "")]) from None
    native = config.settings.heddle.native_sidecars if options.native_sidecar is None else options.native_sidecar
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    return Wanted(
        config=config,
        options=options,
        proxy=proxy_config(config, options, about),
        grace_seconds=DEFAULT_GRACE_SECONDS if grace is None else int(grace),
        native=native and built_in == SIDECAR,
        template=built_in,
        templates=others,
    )


def _user(container: Mapping[str, Any], spec: Mapping[str, Any]) -> object:
    own, pods = container.get("securityContext") or {}, spec.get("securityContext") or {}
    return own.get("runAsUser", pods.get("runAsUser"))


def _rewritten(container: Raw, wanted: Wanted, asked: Raw) -> Raw:
    return container if container["name"] in OURS else rewrite(container, wanted.agent_port, asked)


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
