"""`values:` of an IstioOperator: those of Istio's Helm charts. Source: Istio's operator/pkg/apis/values_types.proto."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from install.kubernetes_resources import Raw, Resources, TagText, TextMap
from mesh.injector import Policy
from mesh.istio.base import EMPTY, Flag, Model, Text, UInt, planned
from mesh.label_selector import LabelSelector
from mesh.problems import Path


class PullPolicy(Model):
    enabled: Flag | None = None


class StartupProbe(Model):
    enabled: Flag | None = None
    failure_threshold: UInt | None = None


class ProxyInit(Model):
    """values.global.proxy_init"""

    image: Any = planned()
    resources: Resources | None = None


class Logging(Model):
    level: Text = ""


class ValuesProxy(Model):
    """values.global.proxy. What only injection reads is passed on as it is (install/render.py, `injector_values`)."""

    image: Text = ""
    status_port: UInt | None = None
    component_log_level: Text = ""
    exclude_inbound_ports: TagText = ""
    exclude_ip_ranges: Text = Field(default="", alias="excludeIPRanges")
    exclude_outbound_ports: TagText = ""
    hold_application_until_proxy_starts: Flag | None = None
    include_inbound_ports: TagText = ""
    include_ip_ranges: Text = Field(default="", alias="includeIPRanges")
    include_outbound_ports: TagText = ""
    lifecycle: Raw | None = None
    log_level: Text = ""
    readiness_failure_threshold: UInt | None = None
    readiness_initial_delay_seconds: UInt | None = None
    readiness_period_seconds: UInt | None = None
    resources: Resources | None = None
    startup_probe: StartupProbe | None = None
    auto_inject: Policy | None = None
    cluster_domain: Any = planned()
    enable_core_dump: Any = planned()
    outlier_log_path: Any = planned()
    privileged: Any = planned()
    seccomp_profile: Any = planned()
    tracer: Any = planned()


class ValuesGlobal(Model):
    """values.global"""

    hub: Text = ""
    tag: TagText = ""
    istio_namespace: Text = ""
    image_pull_policy: Text = ""
    image_pull_secrets: tuple[Text, ...] = ()
    priority_class_name: Text = ""
    default_pod_disruption_budget: PullPolicy = PullPolicy()
    proxy: ValuesProxy = ValuesProxy()
    proxy_init: ProxyInit | None = Field(default=None, alias="proxy_init")
    logging: Logging | None = None
    agentgateway: Any = planned()
    arch: Any = planned()
    ca_address: Any = planned()
    ca_name: Any = planned()
    cert_signers: Any = planned()
    config_cluster: Any = planned()
    config_root_namespace: Any = planned()
    config_validation: Any = planned()
    default_node_selector: Any = planned()
    default_resources: Any = planned()
    default_tolerations: Any = planned()
    enable_reader_rbac: Any = planned(alias="enableReaderRBAC")
    external_istiod: Any = planned()
    ip_families: Any = planned()
    ip_family_policy: Any = planned()
    istiod: Any = planned()
    jwt_policy: Any = planned()
    log_as_json: Any = planned()
    mesh_id: Any = planned(alias="meshID")
    mesh_networks: Any = planned()
    mount_mtls_certs: Any = planned()
    multi_cluster: Any = planned()
    native_nftables: Any = planned()
    network: Any = planned()
    network_policy: Any = planned()
    omit_sidecar_injector_config_map: Any = planned()
    operator_manage_webhooks: Any = planned()
    pilot_cert_provider: Any = planned()
    platform: Any = planned()
    pod_dns_search_namespaces: Any = planned(alias="podDNSSearchNamespaces")
    remote_pilot_address: Any = planned()
    resource_scope: Any = planned()
    revision: Any = planned()
    sds: Any = planned()
    sts: Any = planned()
    tracer: Any = planned()
    trust_bundle_name: Any = planned()
    variant: Any = planned()
    waypoint: Any = planned()


NATIVE_SIDECARS = "ENABLE_NATIVE_SIDECARS"


class ValuesPilot(Model):
    """values.pilot; what concerns pods is the same as in components.pilot.k8s, which wins."""

    env: TextMap = EMPTY
    replica_count: UInt | None = None
    resources: Resources | None = None
    node_selector: TextMap = EMPTY
    tolerations: tuple[Raw, ...] = ()
    affinity: Raw | None = None
    pod_annotations: TextMap = EMPTY
    hub: Text = ""
    tag: TagText = ""
    autoscale_behavior: Any = planned()
    autoscale_enabled: Any = planned()
    autoscale_max: Any = planned()
    autoscale_min: Any = planned()
    cni: Any = planned()
    config_map: Any = planned()
    cpu: Any = planned()
    crl_config_map_name: Any = planned()
    deployment_labels: Any = planned()
    enabled: Any = planned()
    env_var_from: Any = planned()
    extra_container_args: Any = planned()
    image: Any = planned()
    ip_families: Any = planned()
    ip_family_policy: Any = planned()
    istiod_remote: Any = planned()
    jwks_resolver_extra_root_ca: Any = planned(alias="jwksResolverExtraRootCA")
    keepalive_max_server_connection_age: Any = planned()
    memory: Any = planned()
    pod_labels: Any = planned()
    rolling_max_surge: Any = planned()
    rolling_max_unavailable: Any = planned()
    seccomp_profile: Any = planned()
    service_account_annotations: Any = planned()
    service_annotations: Any = planned()
    taint: Any = planned()
    termination_grace_period_seconds: Any = planned()
    topology_spread_constraints: Any = planned()
    trace_sampling: Any = planned()
    trusted_ztunnel_namespace: Any = planned()
    variant: Any = planned()
    volume_mounts: Any = planned()
    volumes: Any = planned()

    def partly_planned(self) -> Iterable[Path]:
        return [("env", name) for name in self.env if name != NATIVE_SIDECARS]


class ValuesCni(Model):
    """values.cni"""

    enabled: Flag | None = None
    exclude_namespaces: tuple[Text, ...] = ()
    affinity: Any = planned()
    ambient: Any = planned()
    chained: Any = planned()
    cni_bin_dir: Any = planned()
    cni_conf_dir: Any = planned()
    cni_conf_file_name: Any = planned()
    cni_netns_dir: Any = planned()
    daemon_set_labels: Any = planned()
    env: Any = planned()
    hub: Any = planned()
    image: Any = planned()
    istio_owned_cni_config: Any = planned(alias="istioOwnedCNIConfig")
    istio_owned_cni_config_file_name: Any = planned(alias="istioOwnedCNIConfigFileName")
    log_level: Any = planned()
    logging: Any = planned()
    pod_annotations: Any = planned()
    pod_labels: Any = planned()
    privileged: Any = planned()
    provider: Any = planned()
    psp_cluster_role: Any = planned(alias="psp_cluster_role")
    pull_policy: Any = planned()
    repair: Any = planned()
    resource_quotas: Any = planned(alias="resource_quotas")
    resources: Any = planned()
    rolling_max_unavailable: Any = planned()
    seccomp_profile: Any = planned()
    tag: Any = planned()
    use_app_armor_annotation: Any = planned()
    variant: Any = planned()


class ValuesInjector(Model):
    """values.sidecarInjectorWebhook"""

    enable_namespaces_by_default: Flag = False
    default_templates: tuple[Text, ...] = ()
    injected_annotations: TextMap = EMPTY
    rewrite_app_http_probe: Flag | None = Field(default=None, alias="rewriteAppHTTPProbe")
    templates: Raw | None = None
    always_inject_selector: tuple[LabelSelector, ...] = ()
    injection_url: Any = planned(alias="injectionURL")
    never_inject_selector: tuple[LabelSelector, ...] = ()
    reinvocation_policy: Any = planned()


class Values(Model):
    """Helm's values of Istio's charts."""

    global_: ValuesGlobal = Field(default=ValuesGlobal(), alias="global")
    pilot: ValuesPilot = ValuesPilot()
    cni: ValuesCni = ValuesCni()
    sidecar_injector_webhook: ValuesInjector = ValuesInjector()
    ambient: Any = planned()
    base: Any = planned()
    compatibility_version: Any = planned()
    default_revision: Any = planned()
    experimental: Any = planned()
    gateways: Any = planned()
    gateway_classes: Any = planned()
    istio_cni: Any = planned(alias="istio_cni")
    istiod: Any = planned()
    istiod_remote: Any = planned()
    mesh_config: Any = planned()
    owner_name: Any = planned()
    profile: Any = planned()
    revision: Any = planned()
    revision_tags: Any = planned()
    telemetry: Any = planned()
    ztunnel: Any = planned()
