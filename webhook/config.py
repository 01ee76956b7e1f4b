"""What injection depends on besides the pod. A value, so that the same pod and the same config give the same result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from mesh import ports
from mesh.annotations import PROXY_CONFIG, PodOptions
from mesh.identity import CONTROL_NAMESPACE
from mesh.problems import FieldProblem, ObjectErrors, show
from mesh.proxy_configs import Chosen, ProxyConfigs, as_default_config
from mesh.settings import MeshSettings, ProxyConfig
from webhook.injector import InjectorSettings

DEFAULT_REVISION = "default"
NEVER_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})


@dataclass(frozen=True)
class InjectionConfig:
    """`revision` is the one that namespaces and pods choose by `istio.io/rev`; addresses are `host:port`.

    `by_default`: pods of namespaces without a label are injected too (Istio's enableNamespacesByDefault).
    `node_agent`: there may be node agents. `gated`: pods wait at a gate for one (webhook/gate.py sets it).
    `proxy_configs` are the mesh's ProxyConfig objects, `chosen` those for the pod (`for_pod` sets it).
    `tags` are the revision tags that stand for `revision` now; they are chosen by `istio.io/rev` as well.
    """

    settings: MeshSettings = field(default_factory=MeshSettings)
    revision: str = DEFAULT_REVISION
    control_namespace: str = CONTROL_NAMESPACE
    ca_address: str = f"heddle-ca.{CONTROL_NAMESPACE}.svc:{ports.CA}"
    discovery_address: str = f"heddle-discovery.{CONTROL_NAMESPACE}.svc:{ports.DISCOVERY}"
    by_default: bool = False
    injector: InjectorSettings = field(default_factory=InjectorSettings)
    tags: frozenset[str] = frozenset()
    node_agent: bool = True
    gated: bool = False
    proxy_configs: ProxyConfigs = field(default_factory=ProxyConfigs)
    chosen: Chosen = field(default_factory=Chosen)

    @cached_property
    def proxy_defaults(self) -> Mapping[str, Any]:
        """The mesh's ProxyConfig as JSON, under Istio's names."""
        return _dumped(self.settings.default_config)


def for_pod(config: InjectionConfig, namespace: str, labels: Mapping[str, str]) -> InjectionConfig:
    """`config` as it holds for a pod of `namespace` that has these labels before it is injected."""
    chosen = config.proxy_configs.of(namespace, labels)
    return replace(config, chosen=chosen) if any(chosen) else config


def proxy_config(config: InjectionConfig, options: PodOptions, about: str) -> Mapping[str, Any]:
    """The ProxyConfig of one pod as JSON: the mesh's, replaced field by field by ProxyConfig objects and the pod's own,
    in the order of mesh/proxy_configs.py.

    `proxyMetadata` is merged key by key, as Istio does. ObjectErrors names the fields of the pod's that are wrong.
    """
    chosen = config.chosen
    if not options.proxy_config and options.status_port is None and not any(chosen):
        return config.proxy_defaults
    layers = [
        *(as_default_config(each.spec) for each in chosen.wide),
        options.proxy_config or {},
        *(as_default_config(each.spec) for each in chosen.own),
        {} if options.status_port is None else {"statusPort": options.status_port},
    ]
    wanted: dict[str, Any] = dict(config.proxy_defaults)
    for layer in layers:
        metadata, more = wanted["proxyMetadata"], layer.get("proxyMetadata")
        wanted |= layer
        if isinstance(metadata, dict) and isinstance(more, dict):
            wanted["proxyMetadata"] = {**metadata, **more}
    try:
        merged = ProxyConfig.model_validate(wanted)
    except ValidationError as error:
        path = ("metadata", "annotations", PROXY_CONFIG)
        raise ObjectErrors(
            about,
            [
                FieldProblem(
                    (*path, *e["loc"]),
                    e["msg"].removeprefix("Value error, "),
                    "see ProxyConfig in Istio's reference",
                    show(e["input"]),
                )
                for e in error.errors()
            ],
        ) from None
    return _dumped(merged)


def _dumped(config: ProxyConfig) -> dict[str, Any]:
    dumped: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped
