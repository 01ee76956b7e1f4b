"""How a proxy traces: where spans go, how many requests are traced, what spans say.

Source: https://istio.io/latest/docs/reference/config/telemetry/#Tracing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from discovery.plan.hosts import destination_name
from discovery.plan.reporting import TagSource, Tracer, TraceTag, Tracing
from discovery.plan.services import Services
from mesh.istio import telemetry as objects
from mesh.providers import Collector, ExtensionProvider
from mesh.settings import MeshSettings

_DEFAULT_LENGTH = 256


def tracing_of(settings: MeshSettings, entries: Iterable[objects.Tracing], services: Services) -> Tracing | None:
    """What `entries`, the widest first, make of the mesh's settings; None where nothing is traced."""
    providers = settings.default_providers.tracing
    defaults = settings.default_config.tracing
    sampling = defaults.sampling if defaults is not None else 1.0
    tags: dict[str, TraceTag] = {}
    reported = True
    for entry in entries:
        providers = tuple(each.name for each in entry.providers) or providers
        sampling = sampling if entry.random_sampling_percentage is None else entry.random_sampling_percentage
        reported = reported if entry.disable_span_reporting is None else not entry.disable_span_reporting
        tags |= {name: _tag(name, tag) for name, tag in entry.custom_tags.items()}
    provider = next((each for each in settings.extension_providers if providers and each.name == providers[0]), None)
    to = _collector(provider, services) if provider is not None and settings.enable_tracing else None
    if to is None:
        return None
    return replace(
        to, sampling=sampling if reported else 0.0, reported=reported, tags=tuple(tags[n] for n in sorted(tags))
    )


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
    length = collector.max_tag_length or _DEFAULT_LENGTH
    if provider.zipkin is not None:
        return Tracing(Tracer.ZIPKIN, destination, host, provider.zipkin.path or "/api/v2/spans", max_tag_length=length)
    http = collector.http
    kind = Tracer.OPENTELEMETRY if http is None else Tracer.OPENTELEMETRY_HTTP
    return Tracing(kind, destination, host, http.path if http else "", max_tag_length=length)


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
