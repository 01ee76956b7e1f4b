"""The annotations and labels of pods that Istio defines for injection: one table each. Pure.

Names, values and meaning are Istio's (its references "Resource Annotations" and "Resource Labels", and its injection
template). A row is acted on, or says why not; mesh/annotation_page.py writes docs/reference/annotations.md from them. A
value that cannot be read refuses the pod, as Istio does: a pod that asks for a port to stay out of the mesh and does
not get that is worse than a pod that does not start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from mesh.annotation_values import (
    AGENT_LOG_LEVELS,
    PROXY_LOG_LEVELS,
    count_from,
    named_objects,
    one_of,
    parse_agent_level,
    parse_buckets,
    parse_component_levels,
    parse_image,
    parse_image_type,
    parse_mapping,
    parse_names,
    parse_port,
    parse_quantity,
    parse_truth,
)
from mesh.errors import InvalidInput
from mesh.interception import parse_cidrs, parse_cidrs_or_all, parse_interfaces, parse_ports, parse_ports_or_all
from mesh.objects import SIDECAR_STATUS_ANNOTATION
from mesh.problems import FieldProblem, ObjectErrors, show
from mesh.workloads import NAME_LABEL, REVISION_LABEL

INJECT = "sidecar.istio.io/inject"
REVISION = "istio.io/rev"
NAMESPACE_INJECTION = "istio-injection"
OVERRIDES = "proxy.istio.io/overrides"
PROXY_CONFIG = "proxy.istio.io/config"
"""In which a pod says what is in `meshConfig.defaultConfig`."""
TLS_MODE_LABEL = "security.istio.io/tlsMode"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
DEFAULT_LOGS_CONTAINER = "kubectl.kubernetes.io/default-logs-container"

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What the annotations of one pod ask for. None: not asked, the mesh's settings decide.

    `include_inbound_ports` and `include_outbound_cidrs` are None for `*`, everything, which is the default too.
    """

    include_inbound_ports: tuple[int, ...] | None = None
    exclude_inbound_ports: tuple[int, ...] = ()
    include_outbound_cidrs: tuple[str, ...] | None = None
    exclude_outbound_cidrs: tuple[str, ...] = ()
    include_outbound_ports: tuple[int, ...] = ()
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    virtual_interfaces: tuple[str, ...] = ()
    interception_mode: str = "REDIRECT"
    templates: tuple[str, ...] | None = None
    native_sidecar: bool | None = None
    proxy_image: str | None = None
    proxy_image_type: str | None = None
    proxy_cpu: str | None = None
    proxy_cpu_limit: str | None = None
    proxy_memory: str | None = None
    proxy_memory_limit: str | None = None
    proxy_log_level: str | None = None
    component_log_level: str | None = None
    agent_log_level: str | None = None
    proxy_config: Mapping[str, Any] | None = None
    bootstrap_override: str | None = None
    histogram_buckets: Mapping[str, tuple[float, ...]] | None = None
    user_volumes: tuple[Raw, ...] = ()
    user_volume_mounts: tuple[Raw, ...] = ()
    rewrite_probes: bool = True
    merge_metrics: bool | None = None
    status_port: int | None = None
    readiness_initial_delay: int | None = None
    readiness_period: int | None = None
    readiness_failures: int | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row: `field` is that of PodOptions, or empty where the injection itself reads or writes the annotation.

    `unheeded` says why the annotation has no effect, in a warning; values in `fine` ask for what is so anyway.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    default: str
    doc: str
    unheeded: str = ""
    fine: tuple[str, ...] = ()


_TRAFFIC = "traffic.sidecar.istio.io/"
_SIDECAR = "sidecar.istio.io/"
_READINESS = "readiness.status.sidecar.istio.io/"
_ONLY_REDIRECT = "REDIRECT is the only mode so far; leave the annotation out"
_VOLUME = '{"certs": {"secret": {"secretName": "certs"}}}'
_MOUNT = '{"certs": {"mountPath": "/etc/certs", "readOnly": true}}'


def _name(text: str) -> str:
    if not text.strip():
        raise InvalidInput("it names nothing", hint="write the name of a ConfigMap of the pod's namespace")
    return text.strip()


def _unheeded(name: str, why: str, *fine: str) -> Annotation:
    return Annotation(name, "", str, "-", why, unheeded=why, fine=fine)


TABLE: tuple[Annotation, ...] = (
    Annotation(
        INJECT,
        "",
        parse_truth,
        "the namespace's labels decide",
        "Whether this pod gets a sidecar. The label of the same name wins over the annotation.",
    ),
    Annotation(
        "inject.istio.io/templates",
        "templates",
        parse_names,
        "defaultTemplates, else sidecar",
        "Which templates are applied, separated by commas. `sidecar`: a proxy beside the app. `gateway`: the pod's own "
        "container `istio-proxy` becomes the proxy. Others are those of ConfigMap `istio-sidecar-injector`.",
    ),
    Annotation(
        _SIDECAR + "nativeSidecar",
        "native_sidecar",
        parse_truth,
        "meshConfig heddle.nativeSidecars",
        "Run the proxy as an init container that stays (Kubernetes 1.29), or as an ordinary container.",
    ),
    Annotation(
        _TRAFFIC + "includeInboundPorts",
        "include_inbound_ports",
        parse_ports_or_all,
        "*",
        "Ports whose inbound connections go through the proxy; `*` is all, empty is none.",
    ),
    Annotation(
        _TRAFFIC + "excludeInboundPorts",
        "exclude_inbound_ports",
        parse_ports,
        "none",
        "Ports whose inbound connections go straight to the app. The proxy's own 15020, 15021 and 15090 always do.",
    ),
    Annotation(
        _TRAFFIC + "includeOutboundIPRanges",
        "include_outbound_cidrs",
        parse_cidrs_or_all,
        "*",
        "Addresses to which connections go through the proxy; `*` is all, empty is none.",
    ),
    Annotation(
        _TRAFFIC + "excludeOutboundIPRanges",
        "exclude_outbound_cidrs",
        parse_cidrs,
        "none",
        "Addresses to which connections bypass the proxy.",
    ),
    Annotation(
        _TRAFFIC + "includeOutboundPorts",
        "include_outbound_ports",
        parse_ports,
        "none",
        "Ports to which connections go through the proxy whatever the address, in addition to includeOutboundIPRanges.",
    ),
    Annotation(
        _TRAFFIC + "excludeOutboundPorts",
        "exclude_outbound_ports",
        parse_ports,
        "none",
        "Ports to which connections bypass the proxy.",
    ),
    Annotation(
        _TRAFFIC + "excludeInterfaces",
        "exclude_interfaces",
        parse_interfaces,
        "none",
        "Network interfaces whose traffic is left alone, both ways.",
    ),
    Annotation(
        "istio.io/reroute-virtual-interfaces",
        "virtual_interfaces",
        parse_interfaces,
        "none",
        "Virtual interfaces (of a virtual machine or a container in the pod) whose connections into the pod are "
        "treated as the app's own outbound connections.",
    ),
    Annotation(
        _TRAFFIC + "kubevirtInterfaces",
        "virtual_interfaces",
        parse_interfaces,
        "none",
        "The former name of `istio.io/reroute-virtual-interfaces`.",
    ),
    Annotation(
        _SIDECAR + "interceptionMode",
        "interception_mode",
        one_of(("REDIRECT",), _ONLY_REDIRECT),
        "REDIRECT",
        "How connections get to the proxy. TPROXY and NONE are refused for now.",
    ),
    Annotation(
        _SIDECAR + "proxyImage",
        "proxy_image",
        parse_image,
        "meshConfig heddle.image",
        "The image of `istio-proxy` and `istio-init`. A name without a registry, and Istio's own `proxyv2`, stand for "
        "the mesh's image, with a warning.",
    ),
    Annotation(
        _SIDECAR + "proxyImageType",
        "proxy_image_type",
        parse_image_type,
        "",
        "The variant of the mesh's image, a suffix of its tag. One that meshConfig heddle.imageTypes does not name, as "
        "Istio's `distroless` and `debug`, stands for the image itself, with a warning.",
    ),
    Annotation(
        _SIDECAR + "proxyCPU", "proxy_cpu", parse_quantity, "100m", "CPU that the proxy requests. See the note below."
    ),
    Annotation(_SIDECAR + "proxyCPULimit", "proxy_cpu_limit", parse_quantity, "2", "CPU limit of the proxy."),
    Annotation(_SIDECAR + "proxyMemory", "proxy_memory", parse_quantity, "128Mi", "Memory that the proxy requests."),
    Annotation(
        _SIDECAR + "proxyMemoryLimit", "proxy_memory_limit", parse_quantity, "1Gi", "Memory limit of the proxy."
    ),
    Annotation(
        _SIDECAR + "logLevel",
        "proxy_log_level",
        one_of(PROXY_LOG_LEVELS),
        "warning",
        "How much Envoy logs: " + ", ".join(PROXY_LOG_LEVELS) + ".",
    ),
    Annotation(
        _SIDECAR + "componentLogLevel",
        "component_log_level",
        parse_component_levels,
        "none",
        "How much parts of Envoy log: `component:level,...`.",
    ),
    Annotation(
        _SIDECAR + "agentLogLevel",
        "agent_log_level",
        parse_agent_level,
        "info",
        "How much the agent logs: "
        + ", ".join(AGENT_LOG_LEVELS)
        + ". Of Istio's `scope:level,...` the most talkative.",
    ),
    Annotation(
        PROXY_CONFIG,
        "proxy_config",
        parse_mapping,
        "meshConfig defaultConfig",
        "Fields of ProxyConfig, in YAML, that replace the mesh's for this pod; an object ProxyConfig that selects "
        "it goes before them.",
    ),
    Annotation(
        _SIDECAR + "bootstrapOverride",
        "bootstrap_override",
        _name,
        "none",
        "A ConfigMap of the pod's namespace whose `custom_bootstrap.json` is merged over Envoy's bootstrap.",
    ),
    Annotation(
        _SIDECAR + "statsHistogramBuckets",
        "histogram_buckets",
        parse_buckets,
        "Envoy's",
        'Bounds of histograms by prefix of their names, JSON: `{"istiocustom": [1, 5, 10]}`.',
    ),
    Annotation(
        _SIDECAR + "userVolume",
        "user_volumes",
        named_objects(_VOLUME),
        "none",
        f"Volumes to add to the pod, JSON by name: `{_VOLUME}`. A list of objects with a `name` is read as well.",
    ),
    Annotation(
        _SIDECAR + "userVolumeMount",
        "user_volume_mounts",
        named_objects(_MOUNT),
        "none",
        f"What of them is mounted into `istio-proxy`, JSON by name of the volume: `{_MOUNT}`.",
    ),
    Annotation(
        _SIDECAR + "rewriteAppHTTPProbers",
        "rewrite_probes",
        parse_truth,
        "true",
        "Send kubelet's HTTP, TCP and gRPC probes and hooks of the app to the agent, which asks the app from inside.",
    ),
    Annotation(
        "prometheus.istio.io/merge-metrics",
        "merge_metrics",
        parse_truth,
        "meshConfig enablePrometheusMerge",
        "Let Prometheus scrape the agent, which adds the app's own metrics (`prometheus.io/*`) to Envoy's.",
    ),
    Annotation(
        "status.sidecar.istio.io/port",
        "status_port",
        parse_port,
        "15020",
        "The agent's port, for metrics and the app's probes.",
    ),
    Annotation(
        _READINESS + "initialDelaySeconds",
        "readiness_initial_delay",
        count_from(0),
        "0",
        "Readiness probe of the proxy: seconds before the first one.",
    ),
    Annotation(
        _READINESS + "periodSeconds",
        "readiness_period",
        count_from(1),
        "15",
        "Readiness probe of the proxy: seconds between two.",
    ),
    Annotation(
        _READINESS + "failureThreshold",
        "readiness_failures",
        count_from(1),
        "4",
        "Readiness probe of the proxy: failures in a row that make it unready.",
    ),
    Annotation(
        SIDECAR_STATUS_ANNOTATION,
        "",
        str,
        "",
        "Written by the injection: what was added. A pod that has it, and an `istio-proxy`, is left as it is.",
    ),
    Annotation(
        OVERRIDES,
        "",
        str,
        "",
        "Written by the injection: the pod's own `istio-proxy` and `istio-init` containers as they were.",
    ),
    Annotation(REVISION, "", str, "", "Written by the injection: the revision that did it."),
    _unheeded(_SIDECAR + "discoveryAddress", "the webhook says where discovery is; a pod cannot choose another one"),
    _unheeded(_SIDECAR + "controlPlaneAuthPolicy", "the control plane is always spoken to by mutual TLS", "MUTUAL_TLS"),
    _unheeded(_SIDECAR + "enableCoreDump", "it would take a privileged container", "false"),
    _unheeded(_SIDECAR + "capNetBindService", "a gateway listens on low ports without a capability", "false"),
    _unheeded(_SIDECAR + "extraStatTags", "metrics carry their tags without a list of them"),
    _unheeded(_READINESS + "applicationPorts", "the proxy is ready when Envoy has taken its configuration"),
    *(
        Annotation(
            _SIDECAR + "statsInclusion" + part, "", str, "all", "Envoy's statistics are all there, so these are, too."
        )
        for part in ("Prefixes", "Suffixes", "Regexps")
    ),
)

LABELS: tuple[tuple[str, str, str], ...] = (
    (INJECT, "pod", '`"true"` or `"false"`: whether the pod gets a sidecar. A namespace that says no wins over yes.'),
    (NAMESPACE_INJECTION, "namespace", "`enabled` or `disabled`; goes before `istio.io/rev`."),
    (REVISION, "namespace, pod", "The revision, or revision tag, that injects. A namespace's goes before a pod's."),
    (TLS_MODE_LABEL, "pod", "Set to `istio` by the injection, unless the pod has it."),
    (NAME_LABEL, "pod", "Set by the injection, unless there: `app.kubernetes.io/name`, `app`, or the workload's name."),
    (REVISION_LABEL, "pod", "Set by the injection, unless there: `app.kubernetes.io/version`, `version`, or `latest`."),
    ("istio.io/dataplane-mode", "namespace, pod", "Not acted on: there is no ambient mode. Injection goes before it."),
    ("topology.istio.io/network", "pod", "Not acted on, with a warning: a mesh is one network."),
    ("topology.istio.io/cluster", "pod", "Not acted on, with a warning: a mesh is one cluster."),
)
"""Name, of what, and effect."""
_WARNED_LABELS = {
    "topology.istio.io/network": "a mesh is one network",
    "topology.istio.io/cluster": "a mesh is one cluster",
}

_BY_NAME = {row.name: row for row in TABLE}
_OURS = ("sidecar.istio.io/", "inject.istio.io/", "proxy.istio.io/", "prometheus.istio.io/")


def parse_options(annotations: Mapping[str, str], about: str, base: PodOptions | None = None) -> PodOptions:
    """What `annotations` ask for on top of `base`.

    ObjectErrors names the pod (`about`) and every annotation that does not parse.
    """
    given: dict[str, Any] = {}
    problems: list[FieldProblem] = []
    for name, text in annotations.items():
        row = _BY_NAME.get(name)
        if row is None or not row.field:
            continue
        try:
            given[row.field] = row.parse(text)
        except InvalidInput as error:
            path = ("metadata", "annotations", name)
            problems.append(FieldProblem(path, error.message, error.hint or "", show(text)))
    if problems:
        raise ObjectErrors(about, problems)
    base = base or _NOTHING
    return replace(base, **given) if given else base


_NOTHING = PodOptions()


def unheeded_annotations(annotations: Mapping[str, str]) -> list[str]:
    """A sentence for each annotation of Istio's for sidecars that has no effect; typing errors get a hint."""
    found: list[str] = []
    for name, text in annotations.items():
        row = _BY_NAME.get(name)
        if row is not None:
            if row.unheeded and text.strip() not in row.fine:
                found.append(f"annotation {name} is not acted on: {row.unheeded}")
            continue
        domain = name[: name.find("/") + 1]
        if domain.endswith(_OURS):
            near = nearest_annotation(name)
            found.append(f"annotation {name} is not acted on" + (f"; did you mean {near}?" if near else ""))
    return found


def nearest_annotation(name: str) -> str:
    """The annotation that a misspelled one probably is; "" for one that is known, or like none."""
    return "" if name in _BY_NAME else next(iter(get_close_matches(name, _BY_NAME, n=1, cutoff=0.85)), "")


def unheeded_labels(labels: Mapping[str, str]) -> list[str]:
    """A sentence for each label of Istio's that asks for something and has no effect."""
    return [f"label {name} is not acted on: {why}" for name, why in _WARNED_LABELS.items() if name in labels]
