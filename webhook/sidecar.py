"""The containers and volumes that the injection adds, as Kubernetes' JSON. Pure.

Names of containers, volumes, mounts and environment variables are Istio's where Istio has them; the variables are those
that agent/settings.py reads. The root file system is read-only everywhere: what the agent writes goes to `istio-envoy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mesh import ports
from mesh.annotations import PodOptions
from mesh.identity import CONTROL_NAMESPACE
from mesh.interception import InterceptionSpec, arguments
from mesh.objects import PROXY_CONTAINER
from webhook.config import InjectionConfig
from webhook.decision import TOKEN_VOLUME
from webhook.gate import SECCOMP, as_gate
from webhook.injector import GATEWAY, SIDECAR
from webhook.templates import Template

INIT_CONTAINER = "istio-init"
DEFAULT_TYPE = "default"
MINIMUM_DRAIN = "MINIMUM_DRAIN_DURATION"
READY_PATH = "/healthz/ready"
TOKEN_AUDIENCE = "istio-ca"  # noqa: S105 (a name, not a secret)
TOKEN_SECONDS = 43200
ROOTS_CONFIG_MAP = "istio-ca-root-cert"

BOOTSTRAP_VOLUME = "custom-bootstrap-volume"
BOOTSTRAP_FOLDER = "/etc/istio/custom-bootstrap"
BOOTSTRAP_FILE = "custom_bootstrap.json"

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One pod's choices, all settled: what its annotations say on top of the mesh's settings.

    `template` is the built-in one, empty when the pod gets no proxy; `templates` are the others.
    """

    config: InjectionConfig
    options: PodOptions
    proxy: Mapping[str, Any]
    grace_seconds: int
    native: bool
    template: str
    templates: tuple[Template, ...]

    @property
    def image(self) -> str:
        """The pod's own wish counts when it names a registry, and something else than Istio's proxy."""
        asked = self.options.proxy_image or ""
        if is_own_image(asked):
            return asked
        image = self.config.settings.heddle.image
        return image if self.image_type in ("", DEFAULT_TYPE) or self.lacks_type else f"{image}-{self.image_type}"

    @property
    def image_type(self) -> str:
        """The variant that is asked for; the pod's annotation goes before every ProxyConfig, as with Istio."""
        of_config = (self.proxy.get("image") or {}).get("imageType", "")
        return str(of_config if self.options.proxy_image_type is None else self.options.proxy_image_type)

    @property
    def lacks_type(self) -> bool:
        """Whether the mesh has no such variant."""
        return self.image_type not in ("", DEFAULT_TYPE, *self.config.settings.heddle.image_types)

    @property
    def agent_port(self) -> int:
        return int(self.proxy["statusPort"])

    @property
    def hold(self) -> bool:
        """Whether the app waits for its proxy; that of a native sidecar always does."""
        return bool(self.proxy["holdApplicationUntilProxyStarts"]) or self.config.injector.hold


def is_own_image(image: str) -> bool:
    """Whether `image` can be what its annotation asks for: Istio's image has no program of Heddle's."""
    return "/" in image and image.rpartition("/")[2].partition(":")[0].partition("@")[0] != "proxyv2"


def init_container(wanted: Wanted, of_proxy: Mapping[str, Any]) -> Raw:
    """`istio-init`: the only place with capabilities, and gone before anything else starts; or the gate in its place.

    `of_proxy` is the proxy's securityContext: whose connections are not intercepted.
    """
    container: Raw = {
        "name": INIT_CONTAINER,
        "image": wanted.image,
        **_pull_policy(wanted),
        "command": ["heddle-init"],
        "args": arguments(interception(wanted, of_proxy)),
        "resources": _resources(wanted, wanted.config.injector.init_resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "runAsUser": 0,
        },
    }
    return as_gate(container, of_proxy) if wanted.config.gated else container


def interception(wanted: Wanted, of_proxy: Mapping[str, Any]) -> InterceptionSpec:
    """What of this pod's traffic goes through the proxy."""
    options = wanted.options
    own = () if wanted.agent_port == ports.AGENT else (wanted.agent_port,)
    return InterceptionSpec(
        include_inbound_ports=options.include_inbound_ports,
        exclude_inbound_ports=tuple(dict.fromkeys((*options.exclude_inbound_ports, *own))),
        include_outbound_cidrs=options.include_outbound_cidrs,
        exclude_outbound_cidrs=options.exclude_outbound_cidrs,
        include_outbound_ports=options.include_outbound_ports,
        exclude_outbound_ports=options.exclude_outbound_ports,
        exclude_interfaces=options.exclude_interfaces,
        virtual_interfaces=options.virtual_interfaces,
        proxy_uid=of_proxy.get("runAsUser") or ports.PROXY_UID,
        proxy_gid=of_proxy.get("runAsGroup") or ports.PROXY_GID,
    )


def proxy_container(wanted: Wanted, asked: Mapping[str, Any], scrape: str = "", workload: str = "") -> Raw:
    """`istio-proxy`. `asked` is what the agent asks the app for kubelet, see webhook/probes.py; `scrape` is where it
    gets the app's metrics, see webhook/prometheus.py; `workload` is what metrics call the pod.

    The startup probe asks every second, so that the pod is ready soon; that of a native sidecar also holds back the
    app's containers until Envoy has its configuration.
    """
    container: Raw = {
        "name": PROXY_CONTAINER,
        "image": wanted.image,
        **_pull_policy(wanted),
        "command": ["heddle-agent", "run"],
        "env": _environment(wanted, asked, scrape, workload),
        "ports": [
            {"name": "http-envoy-prom", "containerPort": ports.ENVOY_STATS, "protocol": "TCP"},
            {"name": "status-port", "containerPort": ports.HEALTH, "protocol": "TCP"},
            {"name": "http-agent", "containerPort": wanted.agent_port, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": READY_PATH, "port": ports.HEALTH},
            "initialDelaySeconds": wanted.options.readiness_initial_delay or 0,
            "periodSeconds": wanted.options.readiness_period or 15,
            "timeoutSeconds": 3,
            "failureThreshold": wanted.options.readiness_failures or 4,
        },
        "startupProbe": {
            "httpGet": {"path": READY_PATH, "port": ports.HEALTH},
            "initialDelaySeconds": 0,
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": wanted.config.injector.startup_probe.failure_threshold,
        },
        "resources": _resources(wanted, None),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": ports.PROXY_GID,
            "runAsNonRoot": True,
            "runAsUser": ports.PROXY_UID,
            **(SECCOMP if wanted.config.gated else {}),
        },
        "volumeMounts": [
            {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio", "readOnly": True},
            {"name": TOKEN_VOLUME, "mountPath": "/var/run/secrets/tokens", "readOnly": True},
            {"name": "istio-envoy", "mountPath": "/etc/istio/proxy"},
            {"name": "istio-podinfo", "mountPath": "/etc/istio/pod", "readOnly": True},
            *wanted.options.user_volume_mounts,
        ],
    }
    if wanted.options.bootstrap_override:
        container["volumeMounts"].append({"name": BOOTSTRAP_VOLUME, "mountPath": BOOTSTRAP_FOLDER, "readOnly": True})
    if wanted.native:
        container["restartPolicy"] = "Always"
        if not wanted.config.injector.startup_probe.enabled and not wanted.hold:
            del container["startupProbe"]
    if wanted.config.injector.lifecycle:
        container["lifecycle"] = wanted.config.injector.lifecycle
    elif wanted.hold and not wanted.native and wanted.template == SIDECAR:
        # Kubelet starts the next container when this has ended.
        container["lifecycle"] = {"postStart": {"exec": {"command": ["heddle-agent", "wait"]}}}
    return container


def volumes(wanted: Wanted) -> list[Raw]:
    """The volumes that `proxy_container` mounts.

    `istio-envoy` holds the last good configuration and the sockets. It is memory, so that configuration with its
    secrets never reaches the node's disk; it outlives a restart of the container, which is what it is for.
    """
    return [
        {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
        {
            "name": "istio-podinfo",
            "downwardAPI": {
                "items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                ]
            },
        },
        {
            "name": TOKEN_VOLUME,
            "projected": {
                "sources": [
                    {
                        "serviceAccountToken": {
                            "path": "istio-token",
                            "expirationSeconds": TOKEN_SECONDS,
                            "audience": TOKEN_AUDIENCE,
                        }
                    }
                ]
            },
        },
        {"name": "istiod-ca-cert", "configMap": {"name": ROOTS_CONFIG_MAP}},
        *(
            [{"name": BOOTSTRAP_VOLUME, "configMap": {"name": wanted.options.bootstrap_override}}]
            if wanted.options.bootstrap_override
            else ()
        ),
        *wanted.options.user_volumes,
    ]


def _environment(wanted: Wanted, asked: Mapping[str, Any], scrape: str, workload: str) -> list[Raw]:
    config, options = wanted.config, wanted.options
    environment: list[Raw] = [
        _from_pod("POD_NAME", "metadata.name"),
        _from_pod("POD_NAMESPACE", "metadata.namespace"),
        _from_pod("POD_UID", "metadata.uid"),
        _from_pod("INSTANCE_IP", "status.podIP"),
        _from_pod("INSTANCE_IPS", "status.podIPs"),
        _from_pod("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        {"name": "TRUST_DOMAIN", "value": config.settings.trust_domain},
        {"name": "CA_ADDR", "value": config.ca_address},
        {"name": "DISCOVERY_ADDR", "value": config.discovery_address},
        {"name": "CERTIFICATE_TTL", "value": config.settings.heddle.certificate_ttl},
        {"name": "TERMINATION_GRACE_PERIOD_SECONDS", "value": str(wanted.grace_seconds)},
        {"name": "PROXY_CONFIG", "value": _json(wanted.proxy)},
    ]
    home = config.control_namespace
    optional = {
        MINIMUM_DRAIN: _least_drain(wanted),
        "CONTROL_NAMESPACE": home if home != CONTROL_NAMESPACE else None,
        "ENVOY_LOG_LEVEL": options.proxy_log_level,
        "ENVOY_COMPONENT_LOG_LEVEL": options.component_log_level,
        "LOG_LEVEL": options.agent_log_level,
        "STATS_HISTOGRAM_BUCKETS": _json(options.histogram_buckets) if options.histogram_buckets else None,
        "ISTIO_BOOTSTRAP_OVERRIDE": f"{BOOTSTRAP_FOLDER}/{BOOTSTRAP_FILE}" if options.bootstrap_override else None,
        "ISTIO_KUBE_APP_PROBERS": _json(asked) if asked else None,
        "ISTIO_PROMETHEUS_ANNOTATIONS": scrape,
        "ISTIO_META_WORKLOAD_NAME": workload,
    }
    environment.extend({"name": name, "value": value} for name, value in optional.items() if value)
    taken = {variable["name"] for variable in environment}
    environment.extend(
        {"name": name, "value": str(value)}
        for name, value in wanted.proxy["proxyMetadata"].items()
        if name not in taken  # identity and addresses are not for a pod to choose
    )
    return environment


def _least_drain(wanted: Wanted) -> str | None:
    """A gateway is reached through kube-proxies and load balancers, which hear later than the mesh that it goes."""
    asked: Mapping[str, str] = wanted.proxy["proxyMetadata"]
    if wanted.template != GATEWAY or MINIMUM_DRAIN in asked:
        return None
    return str(wanted.proxy["terminationDrainDuration"])


def _from_pod(name: str, path: str) -> Raw:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _pull_policy(wanted: Wanted) -> Raw:
    policy = wanted.config.injector.image_pull_policy
    return {"imagePullPolicy": policy} if policy else {}


def _resources(wanted: Wanted, own: Mapping[str, Any] | None) -> Raw:
    """Istio's rule: one resource annotation replaces all defaults, which are `own` or those of the proxy."""
    options = wanted.options
    requests = {"cpu": options.proxy_cpu, "memory": options.proxy_memory}
    limits = {"cpu": options.proxy_cpu_limit, "memory": options.proxy_memory_limit}
    if not any((*requests.values(), *limits.values())):
        defaults = wanted.config.injector.resources if own is None else own
        return {kind: dict(amounts) for kind, amounts in defaults.items()}
    asked = {
        kind: {name: amount for name, amount in amounts.items() if amount}
        for kind, amounts in (("requests", requests), ("limits", limits))
    }
    return {kind: amounts for kind, amounts in asked.items() if amounts}
