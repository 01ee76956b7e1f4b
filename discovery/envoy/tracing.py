"""Tracing, as the `tracing` field of a connection manager.

A span's service is the proxy's canonical service, which is not in the listener, since proxies share it: the agent says
it in Envoy's environment (OpenTelemetry) and as the node's cluster (Zipkin).
"""

from __future__ import annotations

from discovery.envoy.values import Json, format_text
from discovery.plan.reporting import TagSource, Tracer, TraceTag, Tracing

_TRACE = "type.googleapis.com/envoy.config.trace.v3."
_DETECTOR = "envoy.tracers.opentelemetry.resource_detectors.environment"
_DETECTOR_TYPE = (
    "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig"
)
_TIMEOUT = "10s"
_WITHOUT_REQUEST_ID: Json = {
    "request_id_extension": {
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
            "use_request_id_for_trace_sampling": False,
        }
    }
}


def tracing(settings: Tracing | None) -> Json:
    """Nothing where nothing is traced: then a caller's headers pass as they are."""
    if settings is None:
        return {}
    rendered: Json = {
        "client_sampling": {"value": 100.0 if settings.reported else 0.0},
        "random_sampling": {"value": settings.sampling},
        "overall_sampling": {"value": 100.0 if settings.reported else 0.0},
        "max_path_tag_length": settings.max_tag_length,
        "provider": _provider(settings),
    }
    if settings.tags:
        rendered["custom_tags"] = [_tag(each) for each in settings.tags]
    if not settings.passed_on:
        rendered["no_context_propagation"] = True
    return {"tracing": rendered, **({} if settings.by_request_id else _WITHOUT_REQUEST_ID)}


def _provider(settings: Tracing) -> Json:
    if settings.kind is Tracer.ZIPKIN:
        zipkin: Json = {
            "@type": _TRACE + "ZipkinConfig",
            "collector_cluster": settings.destination,
            "collector_endpoint": settings.path,
            "collector_endpoint_version": "HTTP_JSON",
            "collector_hostname": settings.host,
            "trace_id_128bit": settings.long_ids,
            "shared_span_context": False,
            "trace_context_option": "USE_B3_WITH_W3C_PROPAGATION" if settings.w3c else "USE_B3",
        }
        return {"name": "envoy.tracers.zipkin", "typed_config": zipkin}
    otel: Json = {
        "@type": _TRACE + "OpenTelemetryConfig",
        "resource_detectors": [{"name": _DETECTOR, "typed_config": {"@type": _DETECTOR_TYPE}}],
    }
    if settings.kind is Tracer.OPENTELEMETRY_HTTP:
        uri = {"uri": f"http://{settings.host}{settings.path}", "cluster": settings.destination, "timeout": _TIMEOUT}
        otel["http_service"] = {"http_uri": uri}
    else:
        to = {"cluster_name": settings.destination, "authority": settings.host}
        otel["grpc_service"] = {"envoy_grpc": to, "timeout": _TIMEOUT}
    return {"name": "envoy.tracers.opentelemetry", "typed_config": otel}


def _tag(tag: TraceTag) -> Json:
    match tag.source:
        case TagSource.LITERAL:
            return {"tag": tag.name, "literal": {"value": tag.value}}
        case TagSource.ENVIRONMENT:
            return {"tag": tag.name, "environment": {"name": tag.value, "default_value": tag.default}}
        case TagSource.HEADER:
            return {"tag": tag.name, "request_header": {"name": tag.value, "default_value": tag.default}}
        case _:
            return {"tag": tag.name, "value": format_text(tag.value)}
