"""The messages of `istioctl analyze`, and where what they say is said here.

Source: https://istio.io/latest/docs/reference/config/analysis/, pkg/config/analysis/msg/messages.yaml of Istio 1.30.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mesh.analysis.registry import CODES

_GATEWAY_API = "Heddle serves no Gateway API."
_ONE_CLUSTER = "A mesh of Heddle's is one cluster, with its control plane in it."
_NO_AMBIENT = "There is no ambient mode."
_INSTALLING = "`heddle install` looks at it before it changes anything."
_DEFAULTS = "An installation keeps the settings that it was made with; there is no `compatibilityVersion`."

MESSAGES: Mapping[str, tuple[str, str]] = {
    "IST0001": ("InternalError", "`heddle analyze` ends with 2, and says why."),
    "IST0002": ("Deprecated", ""),
    "IST0101": ("ReferencedResourceNotFound", ""),
    "IST0102": ("NamespaceNotInjected", ""),
    "IST0103": ("PodMissingProxy", ""),
    "IST0106": ("SchemaValidationError", ""),
    "IST0107": ("MisplacedAnnotation", ""),
    "IST0108": ("UnknownAnnotation", ""),
    "IST0109": ("ConflictingMeshGatewayVirtualServiceHosts", ""),
    "IST0110": ("ConflictingSidecarWorkloadSelectors", ""),
    "IST0111": ("MultipleSidecarsWithoutWorkloadSelectors", ""),
    "IST0112": ("VirtualServiceDestinationPortSelectorRequired", ""),
    "IST0113": ("MTLSPolicyConflict", ""),
    "IST0116": ("DeploymentAssociatedToMultipleServices", ""),
    "IST0118": ("PortNameIsNotUnderNamingConvention", ""),
    "IST0119": ("JwtFailureDueToInvalidServicePortPrefix", ""),
    "IST0122": ("InvalidRegexp", ""),
    "IST0123": ("NamespaceMultipleInjectionLabels", ""),
    "IST0125": ("InvalidAnnotation", ""),
    "IST0126": ("UnknownMeshNetworksServiceRegistry", _ONE_CLUSTER),
    "IST0127": ("NoMatchingWorkloadsFound", ""),
    "IST0128": ("NoServerCertificateVerificationDestinationLevel", ""),
    "IST0129": ("NoServerCertificateVerificationPortLevel", ""),
    "IST0130": ("VirtualServiceUnreachableRule", ""),
    "IST0131": ("VirtualServiceIneffectiveMatch", ""),
    "IST0132": ("VirtualServiceHostNotFoundInGateway", ""),
    "IST0133": ("SchemaWarning", ""),
    "IST0134": ("ServiceEntryAddressesRequired", ""),
    "IST0135": ("DeprecatedAnnotation", ""),
    "IST0136": ("AlphaAnnotation", ""),
    "IST0137": ("DeploymentConflictingPorts", ""),
    "IST0138": ("GatewayDuplicateCertificate", ""),
    "IST0139": ("InvalidWebhook", "`heddle doctor` looks at both webhooks, and at the Services behind them."),
    "IST0140": ("IngressRouteRulesNotAffected", ""),
    "IST0141": ("InsufficientPermissions", _INSTALLING),
    "IST0142": ("UnsupportedKubernetesVersion", _INSTALLING),
    "IST0143": ("LocalhostListener", "Only a command in the pod can see where its app listens; nothing here runs one."),
    "IST0144": ("InvalidApplicationUID", ""),
    "IST0145": ("ConflictingGateways", ""),
    "IST0146": ("ImageAutoWithoutInjectionWarning", ""),
    "IST0147": ("ImageAutoWithoutInjectionError", ""),
    "IST0148": (
        "NamespaceInjectionEnabledByDefault",
        "Where namespaces are injected by default their pods have sidecars, and HDL0501 is silent.",
    ),
    "IST0149": ("JwtClaimBasedRoutingWithoutRequestAuthN", ""),
    "IST0150": ("ExternalNameServiceTypeInvalidPortName", ""),
    "IST0151": ("EnvoyFilterUsesRelativeOperation", ""),
    "IST0152": ("EnvoyFilterUsesReplaceOperationIncorrectly", ""),
    "IST0153": ("EnvoyFilterUsesAddOperationIncorrectly", ""),
    "IST0154": ("EnvoyFilterUsesRemoveOperationIncorrectly", ""),
    "IST0155": ("EnvoyFilterUsesRelativeOperationWithProxyVersion", ""),
    "IST0156": ("UnsupportedGatewayAPIVersion", _GATEWAY_API),
    "IST0157": ("InvalidTelemetryProvider", ""),
    "IST0158": ("PodsIstioProxyImageMismatchInNamespace", ""),
    "IST0159": ("ConflictingTelemetryWorkloadSelectors", ""),
    "IST0160": ("MultipleTelemetriesWithoutWorkloadSelectors", ""),
    "IST0161": ("InvalidGatewayCredential", ""),
    "IST0162": ("GatewayPortNotDefinedOnService", ""),
    "IST0163": ("InvalidExternalControlPlaneConfig", _ONE_CLUSTER),
    "IST0164": ("ExternalControlPlaneAddressIsNotAHostname", _ONE_CLUSTER),
    "IST0165": ("ReferencedInternalGateway", ""),
    "IST0166": ("IneffectiveSelector", _GATEWAY_API),
    "IST0167": ("IneffectivePolicy", _NO_AMBIENT),
    "IST0168": ("UnknownUpgradeCompatibility", _DEFAULTS),
    "IST0169": ("UpdateIncompatibility", _DEFAULTS),
    "IST0170": ("MultiClusterInconsistentService", _ONE_CLUSTER),
    "IST0171": ("NegativeConditionStatus", ""),
    "IST0173": ("DestinationRuleSubsetNotSelectPods", ""),
    "IST0174": ("UnknownDestinationRuleHost", ""),
}
"""Code -> name, and why there is no code for it here; "" where there is one. What Istio has retired is left out."""


def covered() -> Iterator[tuple[str, str, str]]:
    """Each message: its code, its name, and the codes here or why there are none."""
    for code, (name, reason) in MESSAGES.items():
        ours = [each.number for each in CODES.values() if code in each.istio]
        yield code, name, ", ".join(ours) or reason
