"""`spec.meshConfig`: what is wrong with it, and which of Istio's fields Heddle does not act upon.

MeshSettings lets every unknown field pass, since a running mesh must not stop for one. Who installs is told: a field
that Istio knows is a warning, any other an error. Names: Istio's MeshConfig and ProxyConfig (istio/api mesh/v1alpha1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from mesh.problems import FieldProblem, Path, show
from mesh.settings import MeshSettings
from mesh.validation import nearest

_MESH_CONFIG_NAMES = """
    accessLogEncoding accessLogFile accessLogFormat ca caCertificates certificates configSources connectTimeout
    defaultConfig defaultDestinationRuleExportTo defaultHttpRetryPolicy defaultProviders defaultServiceExportTo
    defaultVirtualServiceExportTo disableEnvoyListenerLog discoverySelectors dnsRefreshRate enableAutoMtls
    enableEnvoyAccessLogService enablePrometheusMerge enableTracing extensionProviders h2UpgradePolicy
    inboundClusterStatName inboundTrafficPolicy ingressClass ingressControllerMode ingressSelector ingressService
    localityLbSetting meshMTLS mixerCheckServer mixerReportServer outboundClusterStatName outboundTrafficPolicy
    pathNormalization proxyHttpPort proxyInboundListenPort proxyListenPort rootNamespace sdsUdsPath serviceScopeConfigs
    serviceSettings tcpKeepalive thriftConfig tlsDefaults trustDomain trustDomainAliases
    verifyCertificateAtClient
"""
_PROXY_CONFIG_NAMES = """
    availabilityZone binaryPath caCertificatesPem concurrency configPath controlPlaneAuthPolicy customConfigFile
    discoveryAddress discoveryRefreshDelay drainDuration envoyAccessLogService envoyMetricsService
    envoyMetricsServiceAddress extraStatTags fileFlushInterval fileFlushMinSizeKb gatewayTopology
    holdApplicationUntilProxyStarts image interceptionMode meshId parentShutdownDuration privateKeyProvider
    proxyAdminPort proxyBootstrapTemplatePath proxyHeaders proxyMetadata proxyStatsMatcher readinessProbe runtimeValues
    sds serviceCluster statNameLength statsCompression statsEviction statsdUdpAddress statusPort
    terminationDrainDuration tracing zipkinAddress
"""
_ISTIO: Mapping[Path, frozenset[str]] = {
    (): frozenset(_MESH_CONFIG_NAMES.split()),
    ("defaultConfig",): frozenset(_PROXY_CONFIG_NAMES.split()),
}
"""Names that Istio has, where it has more than MeshSettings."""


def mesh_config_problems(raw: Mapping[str, Any], path: Path) -> tuple[FieldProblem, ...]:
    """Everything wrong with `raw`, which stands at `path`, and a warning for each field that has no effect."""
    problems: list[FieldProblem] = []
    rest = dict(raw)
    try:
        settings = MeshSettings.model_validate(rest)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            says = f"{detail['msg'].removeprefix('Value error, ')}, and this is {show(detail['input'])}"
            problems.append(FieldProblem((*path, *detail["loc"]), says, "see MeshConfig in Istio's reference"))
            rest.pop(str(detail["loc"][0]), None)
        settings = MeshSettings.model_validate(rest)
    return (*problems, *_extra(settings, (), path))


def _extra(model: BaseModel, within: Path, path: Path) -> Iterator[FieldProblem]:
    fields = {info.alias or name: getattr(model, name) for name, info in type(model).model_fields.items()}
    known = _ISTIO.get(within, frozenset()) | fields.keys()
    for name in model.model_extra or ():
        if name in known:
            says = "Heddle does not act upon this setting"
            yield FieldProblem((*path, *within, name), says, warning=True)
        else:
            meant = nearest(name, known)
            hint = f"did you mean {meant}?" if meant else "see MeshConfig in Istio's reference"
            yield FieldProblem((*path, *within, name), f"there is no field {name!r}", hint)
    for name, value in fields.items():
        if isinstance(value, BaseModel):
            yield from _extra(value, (*within, name), path)
