"""What an administrator sets for injection: Istio's ConfigMap `istio-sidecar-injector`, keys `config` and `values`.

`values` are Istio's installation values as far as injection acts on them. What they set for a pod's annotations are
only defaults of these annotations, so that there is one meaning and one parser for both. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from mesh.errors import InvalidInput
from mesh.label_selector import LabelSelector
from mesh.problems import show
from mesh.yaml_values import Unreadable, load

NAME = "istio-sidecar-injector"
CONFIG_KEY, VALUES_KEY = "config", "values"

Raw = dict[str, Any]
M = TypeVar("M", bound=BaseModel)


class _Model(BaseModel):
    # Istio's values are hundreds, and those of other components; `unheeded_values` names what is not acted on.
    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True, coerce_numbers_to_str=True
    )


class Policy(StrEnum):
    """What holds for a pod that is sent to injection and says nothing itself."""

    enabled = "enabled"
    disabled = "disabled"


class Resources(_Model):
    requests: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)

    def as_json(self) -> Raw:
        """Without what is empty."""
        return {name: dict(amounts) for name, amounts in self if name in ("requests", "limits") and amounts}


class StartupProbe(_Model):
    enabled: bool = True
    failure_threshold: int = Field(default=600, ge=1)


class ProxyValues(_Model):
    """`global.proxy`. Empty texts and None: not set."""

    resources: Resources | None = None
    log_level: str = ""
    component_log_level: str = ""
    include_ip_ranges: str | None = Field(default=None, alias="includeIPRanges")
    exclude_ip_ranges: str | None = Field(default=None, alias="excludeIPRanges")
    include_inbound_ports: str | None = None
    exclude_inbound_ports: str | None = None
    include_outbound_ports: str | None = None
    exclude_outbound_ports: str | None = None
    readiness_initial_delay_seconds: int | None = None
    readiness_period_seconds: int | None = None
    readiness_failure_threshold: int | None = None
    hold_application_until_proxy_starts: bool = False
    auto_inject: Policy = Policy.enabled
    lifecycle: Raw | None = None
    startup_probe: StartupProbe = StartupProbe()


class InitValues(_Model):
    resources: Resources | None = None


class Logging(_Model):
    level: str = ""


class GlobalValues(_Model):
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    logging: Logging = Logging()
    proxy: ProxyValues = ProxyValues()
    proxy_init: InitValues = Field(default=InitValues(), alias="proxy_init")


class WebhookValues(_Model):
    """`sidecarInjectorWebhook`."""

    rewrite_app_http_probe: bool = Field(default=True, alias="rewriteAppHTTPProbe")
    enable_namespaces_by_default: bool = False
    injected_annotations: dict[str, str] = Field(default_factory=dict)
    templates: dict[str, str | Raw] = Field(default_factory=dict)
    default_templates: tuple[str, ...] = ()
    never_inject_selector: tuple[LabelSelector, ...] = ()
    always_inject_selector: tuple[LabelSelector, ...] = ()


class InjectorValues(_Model):
    global_: GlobalValues = Field(default=GlobalValues(), alias="global")
    sidecar_injector_webhook: WebhookValues = WebhookValues()

    def annotations(self) -> dict[str, str]:
        """The annotations of which these values are the mesh's defaults."""
        proxy, traffic, ready = self.global_.proxy, "traffic.sidecar.istio.io/", "readiness.status.sidecar.istio.io/"
        set_: dict[str, object] = {
            traffic + "includeOutboundIPRanges": proxy.include_ip_ranges,
            traffic + "excludeOutboundIPRanges": proxy.exclude_ip_ranges,
            traffic + "includeInboundPorts": proxy.include_inbound_ports,
            traffic + "excludeInboundPorts": proxy.exclude_inbound_ports,
            traffic + "includeOutboundPorts": proxy.include_outbound_ports,
            traffic + "excludeOutboundPorts": proxy.exclude_outbound_ports,
            ready + "initialDelaySeconds": proxy.readiness_initial_delay_seconds,
            ready + "periodSeconds": proxy.readiness_period_seconds,
            ready + "failureThreshold": proxy.readiness_failure_threshold,
            "sidecar.istio.io/logLevel": proxy.log_level or None,
            "sidecar.istio.io/componentLogLevel": proxy.component_log_level or None,
            "sidecar.istio.io/agentLogLevel": self.global_.logging.level or None,
            "sidecar.istio.io/rewriteAppHTTPProbers": str(self.sidecar_injector_webhook.rewrite_app_http_probe).lower(),
        }
        return {name: str(value) for name, value in set_.items() if value is not None}


class InjectorConfig(_Model):
    """The key `config`: templates of one's own, which are applied to a pod that names none, and who gets a sidecar.

    As in Istio, the selectors decide about pods that say nothing themselves, `neverInjectSelector` first.
    """

    templates: dict[str, str | Raw] = Field(default_factory=dict)
    default_templates: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    injected_annotations: dict[str, str] = Field(default_factory=dict)
    policy: Policy | None = None
    never_inject_selector: tuple[LabelSelector, ...] = ()
    always_inject_selector: tuple[LabelSelector, ...] = ()


def parse_values(text: str) -> InjectorValues:
    """The key `values`, YAML or JSON; every error at once as one InvalidInput that names each field."""
    return _parse(text, InjectorValues, VALUES_KEY)


def parse_config(text: str) -> InjectorConfig:
    """The key `config`, YAML; every error at once as one InvalidInput that names each field."""
    return _parse(text, InjectorConfig, CONFIG_KEY)


def unheeded_values(values: InjectorValues) -> list[str]:
    """Paths of what `values` set and injection does not act on."""
    return sorted(_extra(values, ""))


def _extra(model: BaseModel, path: str) -> list[str]:
    found = [path + name for name in model.model_extra or ()]
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += _extra(value, f"{path}{info.alias or name}.")
    return found


def _parse(text: str, model: type[M], key: str) -> M:
    field = f"data.{key}"
    try:
        raw: Any = load(text)
    except Unreadable as error:
        says = f"it cannot be read at line {error.line + 1}: {error.message}"
        raise InvalidInput(says, field=field, hint=error.hint or None) from error
    if raw is not None and not isinstance(raw, Mapping):
        raise InvalidInput(f"it is a mapping, and this is {show(raw)}", field=field)
    try:
        return model.model_validate(_set(raw or {}))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {show(e['input'])})" for e in error.errors()]
        raise InvalidInput("; ".join(lines), field=field) from error


def _set(value: Any) -> Any:
    """Without nulls: in Helm's values they mean that nothing is set."""
    if isinstance(value, Mapping):
        return {name: _set(item) for name, item in value.items() if item is not None}
    return value
