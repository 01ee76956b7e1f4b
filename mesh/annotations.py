"""The annotations of pods that Heddle acts on: one table. Pure.

Names, values and meaning are Istio's (its reference "Resource Annotations"). Only what is acted on is in the table;
docs/reference/annotations.md is written from it. A value that does not parse refuses the pod, as Istio does: a pod that
asks for a port to stay out of the mesh and does not get that is worse than a pod that does not start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from mesh.errors import InvalidInput
from mesh.interception import parse_cidrs, parse_cidrs_or_all, parse_interfaces, parse_ports, parse_ports_or_all
from mesh.objects import SIDECAR_STATUS_ANNOTATION
from mesh.problems import FieldProblem, ObjectErrors, show

INJECT = "sidecar.istio.io/inject"
REVISION = "istio.io/rev"
NAMESPACE_INJECTION = "istio-injection"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
DEFAULT_LOGS_CONTAINER = "kubectl.kubernetes.io/default-logs-container"

TEMPLATES = ("sidecar", "gateway")
PROXY_LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


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
    interception_mode: str = "REDIRECT"
    template: str = "sidecar"
    native_sidecar: bool | None = None
    proxy_image: str | None = None
    proxy_cpu: str | None = None
    proxy_cpu_limit: str | None = None
    proxy_memory: str | None = None
    proxy_memory_limit: str | None = None
    proxy_log_level: str | None = None
    proxy_config: Mapping[str, Any] | None = None
    rewrite_probes: bool = True
    status_port: int | None = None
    readiness_initial_delay: int | None = None
    readiness_period: int | None = None
    readiness_failures: int | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row: `field` is that of PodOptions, or empty where the injection itself reads or writes the annotation."""

    name: str
    field: str
    parse: Callable[[str], Any]
    default: str
    doc: str


def parse_truth(text: str) -> bool:
    """`true` and `false`, in the spellings that YAML 1.1 has for them."""
    word = text.strip().lower()
    if word in ("true", "yes", "y", "on", "1"):
        return True
    if word in ("false", "no", "n", "off", "0"):
        return False
    raise InvalidInput(f"{text!r} is neither true nor false", hint='write "true" or "false", in quotes')


def _one_of(choices: tuple[str, ...], way_out: str = "") -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip() not in choices:
            known = ", ".join(choices)
            raise InvalidInput(f"{text!r} is not supported", hint=way_out or f"use one of {known}")
        return text.strip()

    return parse


_QUANTITY = re.compile(r"(\d+|\d+\.\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?\Z")


def parse_quantity(text: str) -> str:
    """An amount as Kubernetes writes it (100m, 1.5, 128Mi); returned as it is. Source: apimachinery's Quantity."""
    if not _QUANTITY.match(text.strip()):
        raise InvalidInput(f"{text!r} is not an amount", hint="write amounts as Kubernetes does: 100m, 2, 128Mi, 1Gi")
    return text.strip()


_IMAGE = re.compile(r"[\w.:/@-]{1,512}\Z", re.ASCII)


def _image(text: str) -> str:
    if not _IMAGE.match(text.strip()):
        raise InvalidInput(f"{text!r} is not an image", hint="write it as registry/name:tag")
    return text.strip()


def _port(text: str) -> int:
    ports = parse_ports(text)
    if len(ports) != 1:
        raise InvalidInput(f"{text!r} is not one port", hint="use a number from 1 to 65535")
    return ports[0]


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) < 2**31):
            raise InvalidInput(f"{text!r} is not a whole number", hint=f"use a number from {least} on")
        return int(text)

    return parse


def _proxy_config(text: str) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise InvalidInput(
            f"it is not YAML: {where}", hint="write fields of ProxyConfig, such as concurrency: 1"
        ) from None
    if config is None:
        return {}
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise InvalidInput("it is not a mapping", hint="write fields of ProxyConfig, such as concurrency: 1")
    return config


_TRAFFIC = "traffic.sidecar.istio.io/"
_SIDECAR = "sidecar.istio.io/"
_ONLY_REDIRECT = "REDIRECT is the only mode so far; leave the annotation out"

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
        "template",
        _one_of(TEMPLATES),
        "sidecar",
        "`sidecar`: a proxy beside the app. `gateway`: the pod's own container `istio-proxy` becomes the proxy.",
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
        _SIDECAR + "interceptionMode",
        "interception_mode",
        _one_of(("REDIRECT",), _ONLY_REDIRECT),
        "REDIRECT",
        "How connections get to the proxy. TPROXY and NONE are refused for now.",
    ),
    Annotation(
        _SIDECAR + "proxyImage",
        "proxy_image",
        _image,
        "meshConfig heddle.image",
        "The image of `istio-proxy` and `istio-init`.",
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
        _one_of(PROXY_LOG_LEVELS),
        "warning",
        "How much Envoy logs: " + ", ".join(PROXY_LOG_LEVELS) + ".",
    ),
    Annotation(
        "proxy.istio.io/config",
        "proxy_config",
        _proxy_config,
        "meshConfig defaultConfig",
        "Fields of ProxyConfig, in YAML, that replace those of the mesh for this pod.",
    ),
    Annotation(
        _SIDECAR + "rewriteAppHTTPProbers",
        "rewrite_probes",
        parse_truth,
        "true",
        "Send kubelet's HTTP, TCP and gRPC probes of the app to the agent, which asks the app from inside.",
    ),
    Annotation(
        "status.sidecar.istio.io/port",
        "status_port",
        _port,
        "15020",
        "The agent's port, for metrics and the app's probes.",
    ),
    Annotation(
        "readiness.status.sidecar.istio.io/initialDelaySeconds",
        "readiness_initial_delay",
        _count(0),
        "0",
        "Readiness probe of the proxy: seconds before the first one.",
    ),
    Annotation(
        "readiness.status.sidecar.istio.io/periodSeconds",
        "readiness_period",
        _count(1),
        "15",
        "Readiness probe of the proxy: seconds between two.",
    ),
    Annotation(
        "readiness.status.sidecar.istio.io/failureThreshold",
        "readiness_failures",
        _count(1),
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
)

_BY_NAME = {row.name: row for row in TABLE}
_OURS = ("sidecar.istio.io/", "inject.istio.io/", "proxy.istio.io/")
_NOT_FOR_US = frozenset({"proxy.istio.io/overrides"})


def parse_options(annotations: Mapping[str, str], about: str) -> PodOptions:
    """What `annotations` ask for. ObjectErrors names the pod (`about`) and every annotation that does not parse."""
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
    return PodOptions(**given)


def unknown_annotations(annotations: Mapping[str, str]) -> list[str]:
    """A sentence for each annotation of Istio's for sidecars that Heddle does not act on; typing errors get a hint."""
    found: list[str] = []
    for name in annotations:
        domain = name[: name.find("/") + 1]
        if name in _BY_NAME or name in _NOT_FOR_US or not domain.endswith(_OURS):
            continue
        near = get_close_matches(name, _BY_NAME, n=1, cutoff=0.85)
        found.append(f"annotation {name} is not acted on" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def reference_page() -> str:
    """docs/reference/annotations.md."""
    lines = [
        "# Annotations of pods",
        "",
        "<!-- Written from mesh/annotations.py by `python -m mesh.annotations`; do not edit. -->",
        "",
        "Names and meaning are Istio's. What is not listed here has no effect; the webhook answers with a warning",
        "that names it. A value that cannot be read refuses the pod, with the annotation, the value and the way out.",
        "",
        "| Annotation | Default | Effect |",
        "|---|---|---|",
        *(f"| `{row.name}` | {row.default or '-'} | {row.doc} |" for row in TABLE),
        "",
        "A pod with at least one of the four resource annotations gets only what they say, without the defaults of the",
        "others; requests and limits in the pod's own `istio-proxy` container win over both.",
        "",
        "`holdApplicationUntilProxyStarts` (in `proxy.istio.io/config` or the mesh's `defaultConfig`) is what a native",
        'sidecar always does. With `sidecar.istio.io/nativeSidecar: "false"` it is not supported.',
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    from pathlib import Path

    Path(__file__).parents[1].joinpath("docs/reference/annotations.md").write_text(reference_page())
