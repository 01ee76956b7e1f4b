"""ConfigMap `istio-sidecar-injector`, ready for use: templates parsed, defaults of annotations read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.annotations import PodOptions, parse_options
from mesh.errors import InvalidInput
from mesh.injector import CONFIG_KEY, NAME, VALUES_KEY, Policy, StartupProbe, parse_config, parse_values
from mesh.label_selector import LabelSelector
from webhook.templates import Template, parse_template

SIDECAR, GATEWAY = "sidecar", "gateway"
BUILT_IN = (SIDECAR, GATEWAY)
PROXYLESS = ("grpc-simple", "grpc-agent")

Raw = dict[str, Any]

DEFAULT_RESOURCES: Raw = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "2", "memory": "1Gi"},
}


@dataclass(frozen=True)
class InjectorSettings:
    """Defaults of the mesh for every pod; `options` are those of its annotations. `hold`: see ProxyConfig's
    holdApplicationUntilProxyStarts. `resources` and `init_resources` are of istio-proxy and istio-init. `policy`,
    `never` and `always` decide about pods that say nothing themselves."""

    options: PodOptions = field(default_factory=PodOptions)
    templates: Mapping[str, Template] = field(default_factory=dict)
    default_templates: tuple[str, ...] = (SIDECAR,)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=lambda: DEFAULT_RESOURCES)
    init_resources: Mapping[str, Any] | None = None
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    hold: bool = False
    lifecycle: Mapping[str, Any] | None = None
    startup_probe: StartupProbe = field(default_factory=StartupProbe)
    by_default: bool = False
    policy: Policy = Policy.enabled
    never: tuple[LabelSelector, ...] = ()
    always: tuple[LabelSelector, ...] = ()


def injector_settings(data: Mapping[str, str]) -> InjectorSettings:
    """From the ConfigMap's data. InvalidInput names the field that is wrong.

    Templates under the names of the built-in ones are left out: they are Istio's own, in a language of its own.
    """
    values = parse_values(data.get(VALUES_KEY, ""))
    config = parse_config(data.get(CONFIG_KEY, ""))
    of_webhook, proxy = values.sidecar_injector_webhook, values.global_.proxy
    texts = {**of_webhook.templates, **config.templates}
    templates = {n: parse_template(n, text) for n, text in texts.items() if n not in (*BUILT_IN, *PROXYLESS)}
    defaults = config.default_templates or of_webhook.default_templates or (SIDECAR,)
    init = values.global_.proxy_init.resources
    settings = InjectorSettings(
        options=parse_options(values.annotations(), f"ConfigMap {NAME}"),
        templates=templates,
        default_templates=defaults,
        aliases=config.aliases,
        annotations={**of_webhook.injected_annotations, **config.injected_annotations},
        resources=DEFAULT_RESOURCES if proxy.resources is None else proxy.resources.as_json(),
        init_resources=None if init is None else init.as_json(),
        image_pull_policy=values.global_.image_pull_policy,
        image_pull_secrets=values.global_.image_pull_secrets,
        hold=proxy.hold_application_until_proxy_starts,
        lifecycle=proxy.lifecycle,
        startup_probe=proxy.startup_probe,
        by_default=of_webhook.enable_namespaces_by_default,
        policy=config.policy or proxy.auto_inject,
        never=config.never_inject_selector or of_webhook.never_inject_selector,
        always=config.always_inject_selector or of_webhook.always_inject_selector,
    )
    chosen_templates(settings, defaults)
    return settings


def chosen_templates(settings: InjectorSettings, names: Iterable[str]) -> tuple[str, tuple[Template, ...]]:
    """The built-in template among `names` (empty: none of them), and the others in their order. InvalidInput."""
    wanted = [inner for name in names for inner in settings.aliases.get(name, (name,))]
    built_in = list(dict.fromkeys(name for name in wanted if name in BUILT_IN))
    if len(built_in) > 1:
        raise InvalidInput("a pod has a sidecar or is a gateway, not both", hint="name one of sidecar and gateway")
    others = dict.fromkeys(name for name in wanted if name not in BUILT_IN)
    for name in others:
        if name in PROXYLESS:
            raise InvalidInput(f"template {name}: gRPC without a proxy is not supported", hint="use sidecar")
        if name not in settings.templates:
            known = ", ".join((*BUILT_IN, *sorted({*settings.templates, *settings.aliases})))
            raise InvalidInput(
                f"there is no template {name!r} (known: {known})", hint=f"define it in ConfigMap {NAME}, key config"
            )
    return (built_in[0] if built_in else ""), tuple(settings.templates[name] for name in others)
