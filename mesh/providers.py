"""Where telemetry goes: `extensionProviders`, `defaultProviders` and the access log of Istio's MeshConfig.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-ExtensionProvider
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from mesh.istio.base import all_rules
from mesh.istio.telemetry import CustomTag
from mesh.substitution import format_errors

BUILT_IN_LOG, BUILT_IN_METRICS = "envoy", "prometheus"
"""Providers that are there without being configured."""
STANDARD_OUTPUT = "/dev/stdout"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


def check_format(text: str) -> str:
    """`text`, which Envoy takes for a format; ValueError with everything that is wrong with it."""
    wrong = [f"{each.message} ({each.hint})" for each in format_errors(text)]
    if wrong:
        raise ValueError("; ".join(wrong))
    return text


class LogFormat(_Settings):
    """`text` is a line, `labels` the fields of a JSON object, both in Envoy's format."""

    text: Annotated[str, AfterValidator(check_format)] = ""
    labels: dict[str, Annotated[str, AfterValidator(check_format)]] | None = None

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


class ZipkinAddress(_Settings):
    """`host:port` of a Service."""

    address: str = Field(pattern=r"^[^:/]+:[0-9]{1,5}$")


class ProxyTracing(_Settings):
    """`tracing` of ProxyConfig, in `defaultConfig` and in a pod's annotation `proxy.istio.io/config`: what holds where
    no provider and no Telemetry says otherwise. `sampling` is a percentage; `zipkin` the collector where none is named.

    Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#Tracing
    """

    sampling: float | None = Field(default=None, ge=0, le=100)
    custom_tags: Mapping[str, CustomTag] = Field(default_factory=dict)
    max_path_tag_length: int | None = Field(default=None, ge=1)
    zipkin: ZipkinAddress | None = None
    enable_istio_tags: bool | None = None

    @model_validator(mode="after")
    def _tags(self) -> Self:
        for name, tag in self.custom_tags.items():
            for found in all_rules(tag, ("customTags", name)):
                raise ValueError(str(found))
        return self

    def over(self, wider: ProxyTracing | None) -> ProxyTracing:
        """The same, with what it leaves open as `wider` has it."""
        return self if wider is None else wider.model_copy(update={n: getattr(self, n) for n in self.model_fields_set})


class Collector(_Settings):
    """A service that takes spans: `service` is `namespace/host` or a host, by name."""

    service: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    max_tag_length: int | None = Field(default=None, ge=1)
    path: str = ""
    """Of Zipkin: `/api/v2/spans` when empty."""
    trace_context_option: Literal["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"] = "USE_B3_WITH_W3C_PROPAGATION"
    """Of Zipkin: by which headers traces are passed on."""
    enable64bit_trace_id: bool = False
    """Of Zipkin: identifiers of half the length."""
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
