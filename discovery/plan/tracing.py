"""How a proxy traces: where spans go, how many requests are traced, what spans say.

Source: https://istio.io/latest/docs/reference/config/telemetry/#Tracing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from pydantic import ValidationError

from discovery.plan.hosts import destination_name
from discovery.plan.reporting import TagSource, Tracer, TraceTag, Tracing
from discovery.plan.services import Services
from mesh.annotation_values import parse_mapping
from mesh.errors import InvalidInput
from mesh.istio import telemetry as objects
from mesh.providers import Collector, ExtensionProvider, ProxyTracing
from mesh.settings import MeshSettings
from mesh.workloads import TRACED_AS

T = TypeVar("T")

_DEFAULT_LENGTH = 256
_DEFAULT_SAMPLING = 1.0
_MOST_POD_CONFIGS = 1024
_CLUSTER_ID = "Kubernetes"


@lru_cache(maxsize=_MOST_POD_CONFIGS)
def own_tracing(proxy_config: str) -> ProxyTracing | None:
    """What a pod's own ProxyConfig, the text of its annotation, says of tracing. What cannot be read says nothing: the
    webhook refuses it."""
    if "tracing" not in proxy_config:
        return None
    try:
        found = parse_mapping(proxy_config).get("tracing")
        return None if found is None else ProxyTracing.model_validate(found)
    except (InvalidInput, ValidationError):
        return None


def tracing_of(
    settings: MeshSettings,
    entries: Iterable[objects.Tracing],
    services: Services,
    own: ProxyTracing | None = None,
) -> Tracing | None:
    """What `entries`, the widest first, make of the mesh's settings and of the pod's `own`; None: nothing is traced.

    Tags of ProxyConfig are there only where no entry has any.
    """
    defaults = _defaults(settings, own)
    providers = settings.default_providers.tracing
    sampling = _said(_DEFAULT_SAMPLING, defaults.sampling)
    istio_tags = _said(True, defaults.enable_istio_tags)
    tags: dict[str, TraceTag] = {}
    disabled = alone = False
    by_request_id = True
    for entry in entries:
        providers = tuple(each.name for each in entry.providers) or providers
        sampling = _said(sampling, entry.random_sampling_percentage)
        istio_tags = _said(istio_tags, entry.enable_istio_tags)
        disabled = _said(disabled, entry.disable_span_reporting)
        alone = _said(alone, entry.disable_context_propagation)
        by_request_id = _said(by_request_id, entry.use_request_id_for_trace_sampling)
        tags |= {name: _tag(name, tag) for name, tag in entry.custom_tags.items()}
    to = _to(settings, providers, defaults, services)
    if to is None:
        return None
    tags = tags or {name: _tag(name, tag) for name, tag in defaults.custom_tags.items()}
    tags = (_istio_tags(settings) if istio_tags else {}) | tags
    return replace(
        to,
        sampling=0.0 if disabled else sampling,
        reported=not disabled,
        tags=tuple(tags[name] for name in sorted(tags)),
        passed_on=not alone,
        by_request_id=by_request_id,
    )


def _said(before: T, now: T | None) -> T:
    return before if now is None else now


def _defaults(settings: MeshSettings, own: ProxyTracing | None) -> ProxyTracing:
    wide = settings.default_config.tracing
    return wide or ProxyTracing() if own is None else own.over(wide)


def _to(
    settings: MeshSettings, providers: tuple[str, ...], defaults: ProxyTracing, services: Services
) -> Tracing | None:
    """Without a provider, the collector of ProxyConfig."""
    if not settings.enable_tracing:
        return None
    if providers:
        provider = next((each for each in settings.extension_providers if each.name == providers[0]), None)
    else:
        provider = _zipkin(defaults)
    to = _collector(provider, services) if provider is not None else None
    if to is None:
        return None
    collector = provider and (provider.opentelemetry or provider.zipkin)
    length = (collector and collector.max_tag_length) or defaults.max_path_tag_length or _DEFAULT_LENGTH
    return replace(to, max_tag_length=length)


def _zipkin(defaults: ProxyTracing) -> ExtensionProvider | None:
    if defaults.zipkin is None:
        return None
    host, _, port = defaults.zipkin.address.rpartition(":")
    return ExtensionProvider(name="tracing.zipkin", zipkin=Collector(service=host, port=int(port)))


def _istio_tags(settings: MeshSettings) -> dict[str, TraceTag]:
    """The mesh's name is its trust domain, as where Istio is told no `meshID`."""
    literals = {"istio.mesh_id": settings.trust_domain, "istio.cluster_id": _CLUSTER_ID}
    return {
        **{name: TraceTag(name, TagSource.LITERAL, value) for name, value in literals.items()},
        **{name: TraceTag(name, TagSource.ENVIRONMENT, value, "unknown") for name, value in TRACED_AS.items()},
    }


def missing_own_collector(settings: MeshSettings, own: ProxyTracing, services: Services) -> str:
    """Why no spans can be sent to the collector that a pod names for itself, or ""."""
    provider = _zipkin(own)
    return missing_collector(provider, services) if provider is not None and settings.enable_tracing else ""


def missing_collector(provider: ExtensionProvider, services: Services) -> str:
    """Why no spans can be sent to `provider`, or ""."""
    collector = provider.opentelemetry or provider.zipkin
    if collector is None or _destination(collector, services) is not None:
        return ""
    return f"provider {provider.name!r} is port {collector.port} of service {collector.service!r}, which is not there"


def _collector(provider: ExtensionProvider, services: Services) -> Tracing | None:
    collector = provider.opentelemetry or provider.zipkin
    found = _destination(collector, services) if collector else None
    if collector is None or found is None:
        return None
    destination, host = found
    if provider.zipkin is not None:
        path, w3c = collector.path or "/api/v2/spans", collector.trace_context_option == "USE_B3_WITH_W3C_PROPAGATION"
        return Tracing(Tracer.ZIPKIN, destination, host, path, w3c=w3c, long_ids=not collector.enable64bit_trace_id)
    if collector.http is None:
        return Tracing(Tracer.OPENTELEMETRY, destination, host)
    return Tracing(Tracer.OPENTELEMETRY_HTTP, destination, host, collector.http.path)


def _destination(collector: Collector, services: Services) -> tuple[str, str] | None:
    for host in _spellings(collector.service.rpartition("/")[2].lower()):
        entry = services.by_host.get(host)
        if entry is not None and entry.port(collector.port) is not None:
            return destination_name(collector.port, "", host), host
    return None


def _spellings(service: str) -> Iterator[str]:
    yield service
    yield f"{service}.svc.cluster.local"
    yield f"{service}.cluster.local"


def _tag(name: str, tag: objects.CustomTag) -> TraceTag:
    if tag.literal is not None:
        return TraceTag(name, TagSource.LITERAL, tag.literal.value)
    if tag.environment is not None:
        return TraceTag(name, TagSource.ENVIRONMENT, tag.environment.name, tag.environment.default_value)
    if tag.header is not None:
        return TraceTag(name, TagSource.HEADER, tag.header.name, tag.header.default_value)
    assert tag.formatter is not None
    return TraceTag(name, TagSource.FORMAT, tag.formatter.value)
