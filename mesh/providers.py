"""Where telemetry goes: `extensionProviders`, `defaultProviders` and the access log of Istio's MeshConfig.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-ExtensionProvider
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

BUILT_IN_LOG, BUILT_IN_METRICS = "envoy", "prometheus"
"""Providers that are there without being configured."""
STANDARD_OUTPUT = "/dev/stdout"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


class LogFormat(_Settings):
    """`text` is a line, `labels` the fields of a JSON object, both in Envoy's format."""

    text: str = ""
    labels: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.text and self.labels:
            raise ValueError("text and labels exclude each other")
        return self


class FileLog(_Settings):
    path: str = STANDARD_OUTPUT
    log_format: LogFormat = LogFormat()


class HttpExport(_Settings):
    path: str = Field(pattern="^/")


class ProxyTracing(_Settings):
    """`defaultConfig.tracing`: percentage of requests that are traced when nothing else says so."""

    sampling: float = Field(default=1.0, ge=0, le=100)


class Collector(_Settings):
    """A service that takes spans: `service` is `namespace/host` or a host, by name."""

    service: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    max_tag_length: int | None = Field(default=None, ge=1)
    path: str = ""
    """Of Zipkin: `/api/v2/spans` when empty."""
    http: HttpExport | None = None
    """Of OpenTelemetry: by HTTP; by gRPC without it."""


class ExtensionProvider(_Settings):
    """Exactly one of Istio's kinds. Of others than these the name alone is known."""

    name: str = Field(min_length=1)
    prometheus: dict[str, Any] | None = None
    envoy_file_access_log: FileLog | None = None
    opentelemetry: Collector | None = None
    zipkin: Collector | None = None


class DefaultProviders(_Settings):
    """By name."""

    metrics: tuple[str, ...] = ()
    access_logging: tuple[str, ...] = ()
    tracing: tuple[str, ...] = ()


def json_fields(text: str) -> Mapping[str, str]:
    """The fields of an `accessLogFormat` with encoding JSON; ValueError when it is something else."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"accessLogFormat is not JSON, as accessLogEncoding says: {error}") from None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("accessLogFormat with accessLogEncoding JSON is an object of texts")
    return fields
