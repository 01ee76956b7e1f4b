"""The mesh's settings: Istio's `meshConfig`, read from ConfigMap `istio` (key `mesh`) in the control plane's namespace.

Source: Istio's MeshConfig and ProxyConfig reference. Field names are Istio's; what Heddle adds is under `heddle`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from mesh.errors import InvalidInput
from mesh.identity import CONTROL_NAMESPACE, DEFAULT_TRUST_DOMAIN, check_trust_domain
from mesh.istio.durations import parse_duration
from mesh.istio.rules import is_dns_label
from mesh.problems import FieldProblem, show
from mesh.providers import DefaultProviders, ExtensionProvider, ProxyTracing, check_format, json_fields
from mesh.yaml_values import Unreadable, load

CLUSTER_DOMAIN = "cluster.local"
SETTINGS_KEY = "mesh"
"""Of the ConfigMap's data."""
_PATH = ("data", SETTINGS_KEY)
_MESH_CONFIG_PAGE = "see MeshConfig in Istio's reference"


def _trust_domain(name: str) -> str:
    try:
        check_trust_domain(name)
    except InvalidInput as error:
        raise ValueError(f"{error.message} ({error.hint})") from error
    return name


def _duration(text: str) -> str:
    if parse_duration(text) < 0:
        raise ValueError("a duration is not less than 0")
    return text


def _namespace(name: str) -> str:
    if not is_dns_label(name):
        raise ValueError(f"{name!r} is not the name of a namespace")
    return name


Duration = Annotated[str, AfterValidator(_duration)]


class _Settings(BaseModel):
    # Real meshConfigs carry fields of Istio's that mean nothing here; `ignored_fields` names them instead of failing.
    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


class OutboundMode(StrEnum):
    ALLOW_ANY = "ALLOW_ANY"
    REGISTRY_ONLY = "REGISTRY_ONLY"


class OutboundTrafficPolicy(_Settings):
    mode: OutboundMode = OutboundMode.ALLOW_ANY


class ProxyImage(_Settings):
    image_type: str = ""


class ProxyConfig(_Settings):
    """Defaults of each sidecar; a pod's annotation `proxy.istio.io/config` overrides them field by field."""

    concurrency: int = Field(default=2, ge=0)
    hold_application_until_proxy_starts: bool = False
    termination_drain_duration: Duration = "5s"
    drain_duration: Duration = "45s"
    proxy_metadata: dict[str, str] = Field(default_factory=dict)
    image: ProxyImage | None = None
    status_port: int = Field(default=15020, ge=1, le=65535)
    proxy_admin_port: int | None = Field(default=None, ge=1, le=65535)
    runtime_values: dict[str, str] | None = None
    proxy_stats_matcher: dict[str, Any] | None = Field(default=None, exclude=True)  # Envoy's statistics are all there
    interception_mode: Literal["REDIRECT"] | None = Field(default=None, exclude=True)
    tracing: ProxyTracing | None = Field(default=None, exclude=True)  # discovery acts upon it


class CaCertificate(_Settings):
    """Roots of other trust domains: as PEM, or from a SPIFFE bundle endpoint.

    `endpoint_spiffe_id` is Heddle's: with it, the endpoint proves itself by an X509-SVID (profile https_spiffe), the
    first time by the roots in `pem`; without it by a certificate of the web's (https_web), as with Istio.
    """

    pem: str = ""
    spiffe_bundle_url: str = ""
    trust_domains: tuple[Annotated[str, AfterValidator(_trust_domain)], ...] = Field(min_length=1)
    endpoint_spiffe_id: str = ""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        url = urlsplit(self.spiffe_bundle_url)
        if self.spiffe_bundle_url and (url.scheme != "https" or not url.hostname or "@" in url.netloc):
            raise ValueError("spiffeBundleUrl is an https:// address without a user name (SPIFFE Federation, 5.2)")
        if self.spiffe_bundle_url and len(self.trust_domains) != 1:
            raise ValueError("spiffeBundleUrl is that of one trust domain: name it alone in trustDomains")
        if self.endpoint_spiffe_id and not self.spiffe_bundle_url:
            raise ValueError("endpointSpiffeId belongs to a spiffeBundleUrl")
        if not self.pem and (self.endpoint_spiffe_id or not self.spiffe_bundle_url):
            raise ValueError("pem is needed: the roots, or those that the endpoint is known by at first")
        return self


class HeddleSettings(_Settings):
    """What Istio has no word for."""

    native_sidecars: bool = True
    image: str = "docker.io/heddle/heddle:0.1.0"
    image_types: tuple[str, ...] = ()  # variants that there are beside it, by a suffix of its tag, for `imageType`
    certificate_ttl: Duration = "24h"
    node_agent: bool = False  # rules are written by the node agent everywhere, not only where pod security asks for it
    node_agent_exclude_namespaces: tuple[str, ...] = ()


class MeshSettings(_Settings):
    trust_domain: Annotated[str, AfterValidator(_trust_domain)] = DEFAULT_TRUST_DOMAIN
    trust_domain_aliases: tuple[Annotated[str, AfterValidator(_trust_domain)], ...] = ()
    ca_certificates: tuple[CaCertificate, ...] = ()
    root_namespace: Annotated[str, AfterValidator(_namespace)] = CONTROL_NAMESPACE
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    enable_auto_mtls: bool = True
    access_log_file: str = ""
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"  # before the format, which is read by it
    access_log_format: str = ""
    enable_tracing: bool = True
    extension_providers: tuple[ExtensionProvider, ...] = ()
    default_providers: DefaultProviders = DefaultProviders()
    enable_prometheus_merge: bool = True
    default_config: ProxyConfig = ProxyConfig()
    heddle: HeddleSettings = HeddleSettings()

    @property
    def other_trust_domains(self) -> tuple[str, ...]:
        """Those whose workloads are let in beside the mesh's own: its aliases, and those with roots of their own."""
        foreign = (domain for each in self.ca_certificates for domain in each.trust_domains)
        others = dict.fromkeys((*self.trust_domain_aliases, *foreign))
        return tuple(domain for domain in others if domain != self.trust_domain)

    @model_validator(mode="after")
    def _own_roots(self) -> Self:
        if any(self.trust_domain in each.trust_domains for each in self.ca_certificates):
            raise ValueError(f"caCertificates: the roots of {self.trust_domain} are the ca's, and no others")
        return self

    @field_validator("access_log_format")
    @classmethod
    def _format(cls, text: str, info: ValidationInfo) -> str:
        if not text or info.data.get("access_log_encoding") != "JSON":
            return check_format(text)
        for name, value in json_fields(text).items():
            try:
                check_format(value)
            except ValueError as error:
                raise ValueError(f"field {name!r}: {error}") from error
        return text

    def ignored_fields(self) -> list[str]:
        """Paths of the fields that were given and that Heddle does not act upon."""
        found: list[str] = []
        for path, part in (
            ("", self),
            ("outboundTrafficPolicy.", self.outbound_traffic_policy),
            ("defaultConfig.", self.default_config),
            ("heddle.", self.heddle),
        ):
            found.extend(path + name for name in part.model_extra or ())
        return found


def mesh_settings(control_namespace: str = CONTROL_NAMESPACE) -> MeshSettings:
    """Those of a mesh that says nothing."""
    return MeshSettings(root_namespace=control_namespace)


def parse_mesh_settings(text: str, control_namespace: str = CONTROL_NAMESPACE) -> MeshSettings:
    """The settings in `text` (YAML); every error at once as one InvalidInput that names each field.

    `control_namespace` is the root namespace where none is named, as with Istio.
    """
    try:
        raw: Any = load(text)
    except Unreadable as error:
        says = f"meshConfig cannot be read at line {error.line + 1}: {error.message}"
        raise InvalidInput(says, field="data.mesh", hint=error.hint or None) from error
    if raw is None:
        return mesh_settings(control_namespace)
    if not isinstance(raw, dict):
        raise InvalidInput(f"meshConfig is a mapping, and this is {show(raw)}", field="data.mesh")
    try:
        return MeshSettings.model_validate({"rootNamespace": control_namespace, **raw})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')} (got {show(e['input'])})"
            for e in error.errors()
        ]
        raise InvalidInput("; ".join(lines), field="data.mesh") from error


def is_settings(raw: Mapping[str, Any]) -> bool:
    """Whether the object is a ConfigMap that has the mesh's settings by its name: `istio`, or `istio-<revision>`."""
    metadata, data = raw.get("metadata"), raw.get("data")
    name = str(metadata.get("name")) if isinstance(metadata, Mapping) else ""
    of_that_name = (raw.get("apiVersion"), raw.get("kind")) == ("v1", "ConfigMap") and f"{name}-".startswith("istio-")
    return of_that_name and isinstance(data, Mapping) and SETTINGS_KEY in data


def settings_problems(raw: Mapping[str, Any]) -> Iterator[FieldProblem]:
    """What is wrong with the settings in a ConfigMap."""
    text = raw["data"][SETTINGS_KEY]
    if not isinstance(text, str):
        yield FieldProblem(_PATH, f"text is expected, and this is {show(text)}", "write it as a block: mesh: |")
        return
    try:
        parse_mesh_settings(text)
    except InvalidInput as error:
        yield problem_of(error)


def problem_of(error: InvalidInput) -> FieldProblem:
    """What `parse_mesh_settings` says, about the ConfigMap."""
    return FieldProblem(_PATH, error.message, error.hint or _MESH_CONFIG_PAGE)
