"""The one table of kinds: what Heddle reads of Kubernetes and Istio, and which part watches it.

Watches, RBAC rules, CRDs, reference pages, `heddle validate` and the API of `heddle local` come from this table. A new
kind is one line here and, unless Kubernetes defines it, a model in `mesh/istio/` or `mesh/heddle/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.heddle.trust_domain import TrustDomain, TrustDomainStatus
from mesh.heddle.workload_certificate import WorkloadCertificate
from mesh.istio.authorization_policy import AuthorizationPolicy
from mesh.istio.base import IstioObject, Model
from mesh.istio.destination_rule import DestinationRule
from mesh.istio.envoy_filter import EnvoyFilter
from mesh.istio.gateway import Gateway
from mesh.istio.peer_authentication import PeerAuthentication
from mesh.istio.proxy_config import ProxyConfig
from mesh.istio.request_authentication import RequestAuthentication
from mesh.istio.service_entry import ServiceEntry
from mesh.istio.sidecar import Sidecar
from mesh.istio.telemetry import Telemetry
from mesh.istio.virtual_service import VirtualService
from mesh.istio.wasm_plugin import WasmPlugin
from mesh.istio.workload_entry import WorkloadEntry
from mesh.istio.workload_group import WorkloadGroup
from mesh.problems import FieldProblem, ObjectErrors, show
from mesh.validation import DEFAULT_NAMESPACE, nearest, parse_object, unhonoured_problems


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `versions`: the preferred first. `model`: of its spec, for all of Istio's kinds and Heddle's own.

    `watched_by`: the parts that list and watch it, of webhook, ca, discovery, node, engine (that of `heddle local`).
    `planned`: its objects are read and checked, and not acted upon in this release. `status`: the model of the status
    that Heddle gives to a kind of its own.
    """

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str
    namespaced: bool = True
    model: type[Model] | None = None
    watched_by: tuple[str, ...] = ()
    planned: bool = False
    status: type[Model] | None = None

    @property
    def api_version(self) -> str:
        """The preferred one, as in manifests: `networking.istio.io/v1`, `v1` for the core group."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]

    @property
    def of_istio(self) -> bool:
        return self.group.endswith(ISTIO_SUFFIX)

    @property
    def path(self) -> str:
        """Where the API server lists all of them: `/apis/networking.istio.io/v1/virtualservices`."""
        return f"/{'apis' if self.group else 'api'}/{self.api_version}/{self.plural}"

    @property
    def definition(self) -> str:
        """The name of its CustomResourceDefinition: `virtualservices.networking.istio.io`; "" for Kubernetes' own."""
        return f"{self.plural}.{self.group}" if self.model else ""


ISTIO_SUFFIX = ".istio.io"
NETWORKING = "networking.istio.io"
SECURITY = "security.istio.io"
TELEMETRY = "telemetry.istio.io"
EXTENSIONS = "extensions.istio.io"
HEDDLE = "heddle.dev"

_ALL_NETWORKING = ("v1", "v1beta1", "v1alpha3")
_V1_BETA = ("v1", "v1beta1")
_DISCOVERY = ("discovery",)
_ADVISED = ("discovery", "webhook")  # what the warnings of the validating webhook look at, too

KINDS: tuple[Kind, ...] = (
    # Kubernetes; parsed by mesh/objects.py
    Kind("", ("v1",), "Namespace", "namespaces", False, None, ("webhook", "discovery", "engine")),
    Kind("", ("v1",), "Pod", "pods", True, None, ("ca", "discovery", "webhook", "node", "engine")),
    Kind("", ("v1",), "Node", "nodes", False, None, ("discovery",)),
    Kind("", ("v1",), "Service", "services", True, None, ("discovery", "webhook", "engine")),
    Kind("", ("v1",), "Secret", "secrets", True, None, ("engine",)),
    Kind("", ("v1",), "ConfigMap", "configmaps", True, None, ("engine",)),
    Kind("", ("v1",), "ServiceAccount", "serviceaccounts", True, None, ("engine",)),
    Kind("discovery.k8s.io", ("v1",), "EndpointSlice", "endpointslices", True, None, ("discovery", "engine")),
    Kind("apps", ("v1",), "ReplicaSet", "replicasets", True, None, ("engine",)),
    Kind("apps", ("v1",), "Deployment", "deployments", True, None, ("engine",)),
    Kind("batch", ("v1",), "Job", "jobs", True, None, ("engine",)),
    # Istio, acted upon
    Kind(NETWORKING, _ALL_NETWORKING, "VirtualService", "virtualservices", True, VirtualService, _ADVISED),
    Kind(NETWORKING, _ALL_NETWORKING, "DestinationRule", "destinationrules", True, DestinationRule, _ADVISED),
    Kind(NETWORKING, _ALL_NETWORKING, "Gateway", "gateways", True, Gateway, _ADVISED),
    Kind(SECURITY, _V1_BETA, "PeerAuthentication", "peerauthentications", True, PeerAuthentication, _ADVISED),
    Kind(NETWORKING, ("v1beta1",), "ProxyConfig", "proxyconfigs", True, ProxyConfig, _ADVISED),
    # Istio, read and checked, and not acted upon yet
    Kind(NETWORKING, _ALL_NETWORKING, "ServiceEntry", "serviceentries", True, ServiceEntry, _ADVISED, planned=True),
    Kind(NETWORKING, _ALL_NETWORKING, "Sidecar", "sidecars", True, Sidecar, _ADVISED, planned=True),
    Kind(
        NETWORKING, _ALL_NETWORKING, "WorkloadEntry", "workloadentries", True, WorkloadEntry, _DISCOVERY, planned=True
    ),
    Kind(NETWORKING, _ALL_NETWORKING, "WorkloadGroup", "workloadgroups", True, WorkloadGroup, _DISCOVERY, planned=True),
    Kind(NETWORKING, ("v1alpha3",), "EnvoyFilter", "envoyfilters", True, EnvoyFilter, _DISCOVERY, planned=True),
    Kind(
        SECURITY,
        _V1_BETA,
        "AuthorizationPolicy",
        "authorizationpolicies",
        True,
        AuthorizationPolicy,
        _DISCOVERY,
        planned=True,
    ),
    Kind(
        SECURITY,
        _V1_BETA,
        "RequestAuthentication",
        "requestauthentications",
        True,
        RequestAuthentication,
        _DISCOVERY,
        planned=True,
    ),
    Kind(TELEMETRY, ("v1", "v1alpha1"), "Telemetry", "telemetries", True, Telemetry, _DISCOVERY),
    Kind(EXTENSIONS, ("v1alpha1",), "WasmPlugin", "wasmplugins", True, WasmPlugin, _DISCOVERY, planned=True),
    # Heddle's own
    Kind(HEDDLE, ("v1",), "WorkloadCertificate", "workloadcertificates", True, WorkloadCertificate),
    Kind(HEDDLE, ("v1",), "TrustDomain", "trustdomains", False, TrustDomain, status=TrustDomainStatus),
)

_BY_NAME = {(kind.group, kind.kind): kind for kind in KINDS}
_PLANNED = frozenset(kind.kind for kind in KINDS if kind.planned)


def find_kind(api_version: str, kind: str) -> Kind | None:
    """The entry for an object's `apiVersion` (any version of its group) and `kind`."""
    return _BY_NAME.get((group_of(api_version), kind))


def group_of(api_version: str) -> str:
    """`networking.istio.io/v1` -> `networking.istio.io`; "" for the core group."""
    return api_version.rpartition("/")[0]


def is_istio(api_version: str) -> bool:
    """Whether the object belongs to one of Istio's groups."""
    return group_of(api_version).endswith(ISTIO_SUFFIX)


def watched_by(part: str) -> tuple[Kind, ...]:
    """The kinds that `part` lists and watches."""
    return tuple(kind for kind in KINDS if part in kind.watched_by)


def kind_of(raw: Mapping[str, Any]) -> Kind:
    """The entry of an object of one of Istio's groups; ObjectErrors when the group has no such kind or version."""
    api_version, kind = raw.get("apiVersion"), raw.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        field, value = ("apiVersion", api_version) if not isinstance(api_version, str) else ("kind", kind)
        found = "is missing" if value is None else f"is {show(value)}"
        hint = "such as networking.istio.io/v1" if field == "apiVersion" else "such as VirtualService"
        raise ObjectErrors(_about(raw), [FieldProblem((field,), f"{field} {found}", hint)])
    entry = find_kind(api_version, kind)
    group, version = group_of(api_version), api_version.rpartition("/")[2]
    if entry is None:
        raise ObjectErrors(_about(raw), [_unknown_kind(group, kind)])
    if version not in entry.versions:
        hint = f"write {entry.api_version}"
        says = f"{group} has no version {version!r} of {kind}, only {', '.join(entry.versions)}"
        raise ObjectErrors(_about(raw), [FieldProblem(("apiVersion",), says, hint)])
    return entry


def parse_istio(raw: Mapping[str, Any], namespace: str = DEFAULT_NAMESPACE) -> IstioObject[Any]:
    """The typed object in `raw`, one of Istio's kinds; ObjectErrors with everything that is wrong with it.

    `namespace` is that of an object that names none, as in a file.
    """
    return parse_with_warnings(raw, namespace)[0]


def parse_with_warnings(
    raw: Mapping[str, Any], namespace: str = DEFAULT_NAMESPACE
) -> tuple[IstioObject[Any], tuple[FieldProblem, ...]]:
    """`parse_istio`, and what is allowed but probably not meant (fields that are not acted upon are not among it)."""
    entry = kind_of(raw)
    if entry.model is None:
        raise ObjectErrors(_about(raw), [_unknown_kind(entry.group, entry.kind)])
    return parse_object(entry.kind, entry.model, raw, namespace)


def without_effect(istio_object: IstioObject[Any]) -> tuple[FieldProblem, ...]:
    """Warnings of what this release does not act upon: the object as a whole, or each such field that is in use."""
    if istio_object.kind in _PLANNED:
        says = f"Heddle knows {istio_object.kind} and does not act upon it yet: it has no effect"
        return (FieldProblem(("kind",), says, warning=True),)
    return unhonoured_problems(istio_object.spec)


def _about(raw: Mapping[str, Any]) -> str:
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    return (
        f"{raw.get('kind') or 'object'} {metadata.get('namespace') or DEFAULT_NAMESPACE}/{metadata.get('name') or '?'}"
    )


def _unknown_kind(group: str, kind: str) -> FieldProblem:
    elsewhere = [entry for entry in KINDS if entry.of_istio and entry.kind == kind]
    if elsewhere:
        hint = f"write apiVersion: {elsewhere[0].api_version}"
        return FieldProblem(("apiVersion",), f"{kind} is not in {group or 'the core group'}", hint)
    known = [entry.kind for entry in KINDS if entry.of_istio]
    meant = nearest(kind, known)
    hint = f"did you mean {meant}?" if meant else f"known: {', '.join(known)}"
    return FieldProblem(("kind",), f"Istio has no kind {kind!r}", hint)
