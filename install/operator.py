"""`IstioOperator` (install.istio.io/v1alpha1) as people have it: the typed model of its spec.

Every field that Istio knows is here; one marked `planned` is read, checked for its name, and has no effect:
`unhonoured` gives its path. Source: Istio's operator/pkg/apis/types.go and its reference page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from install.kubernetes_resources import KubernetesResources, Raw, TagText, TextMap
from install.values import Values
from mesh.istio.base import EMPTY, Flag, Model, Text, planned, problem
from mesh.istio.rules import is_dns_label
from mesh.problems import FieldProblem

API_VERSION = "install.istio.io/v1alpha1"
KIND = "IstioOperator"
DEFAULT_REVISION = "default"
PROFILES = ("minimal", "default", "demo")


class Component(Model):
    enabled: Flag | None = None
    namespace: Text = planned("")
    hub: Text = ""
    tag: TagText = ""
    k8s: KubernetesResources = KubernetesResources()


class Base(Model):
    enabled: Flag | None = planned()
    k8s: KubernetesResources = planned(KubernetesResources())


class Gateway(Model):
    """An ingress or egress gateway of the list. Those of one name and namespace are merged, the profile's first."""

    name: Text
    namespace: Text = ""
    enabled: Flag | None = None
    hub: Text = planned("")
    tag: TagText = planned("")
    label: TextMap = EMPTY
    k8s: KubernetesResources = KubernetesResources()

    def rules(self) -> Iterable[FieldProblem]:
        for field, value in (("name", self.name), ("namespace", self.namespace)):
            if value and not is_dns_label(value):
                hint = "use lower-case letters, digits and dashes"
                yield problem(field, says=f"{value!r} is not a name in Kubernetes", hint=hint)


class Addons(Model):
    """Prometheus, Grafana, Jaeger and Kiali; Heddle's own field."""

    enabled: Flag = False


class Components(Model):
    """`webhook`, `ca`, `discovery` and `addons` are Heddle's own. What `pilot` says holds for each of the first three
    unless it says otherwise; only `resources`, `hpaSpec`, `service` and `overlays` of `pilot` are discovery's alone."""

    base: Base = Base()
    pilot: Component = Component()
    cni: Component = Component()
    ztunnel: Component | None = planned()
    istiod_remote: Component | None = planned()
    ingress_gateways: tuple[Gateway, ...] = ()
    egress_gateways: tuple[Gateway, ...] = ()
    gateway: Component | None = planned()
    webhook: Component = Component()
    ca: Component = Component()
    discovery: Component = Component()
    addons: Addons = Addons()

    def rules(self) -> Iterable[FieldProblem]:
        for name in ("pilot", "webhook", "ca", "discovery"):
            if getattr(self, name).enabled is False:
                hint = "leave it enabled, or use `heddle uninstall`"
                yield problem(name, "enabled", says="a mesh without it does not work", hint=hint)


class OperatorSpec(Model):
    """The spec. `mesh_config` is checked by install/mesh_config.py."""

    profile: Text = "default"
    revision: TagText = ""
    namespace: Text = ""
    hub: Text = ""
    tag: TagText = ""
    mesh_config: Raw = EMPTY
    components: Components = Components()
    values: Values = Values()
    addon_components: Any = planned()
    compatibility_version: Any = planned()
    install_package_path: Any = planned()
    unvalidated_values: Any = planned()

    def rules(self) -> Iterable[FieldProblem]:
        if self.profile not in PROFILES:
            yield problem(
                "profile", says=f"there is no profile {self.profile!r}", hint=f"use one of {', '.join(PROFILES)}"
            )
        hint = "use lower-case letters, digits and dashes"
        if self.revision and not is_dns_label(self.revision):
            yield problem("revision", says=f"{self.revision!r} cannot be part of names in Kubernetes", hint=hint)
        if self.namespace and not is_dns_label(self.namespace):
            yield problem("namespace", says=f"{self.namespace!r} is not a namespace", hint=hint)
