"""From a request to the objects of an installation, component by component, in the order of their application. Pure.

The files of `manifests/` are the objects; what is asked for changes them: namespace, revision, images, mesh settings,
`k8s` of each component. With nothing asked for they come out as `kubectl apply -k` reads them (a test compares).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from install import files
from install.gateways import gateway_objects
from install.kubernetes_resources import KubernetesResources
from install.merging import overlaid
from install.names import MESH_CONFIG, REVISION_LABEL, in_namespace, is_of_revision, with_revision
from install.operator import DEFAULT_REVISION, Component, OperatorSpec
from install.overlay import WORKLOADS, with_overlays, with_settings
from install.printing import value_as_yaml
from install.request import ISTIO_HUBS
from install.values import NATIVE_SIDECARS
from mesh.annotation_values import parse_truth
from mesh.errors import InvalidInput
from mesh.identity import CONTROL_NAMESPACE
from mesh.settings import MeshSettings
from mesh.yaml_values import load

OWNER_LABEL = "install.heddle.dev/owner"
COMPONENT_LABEL = "install.heddle.dev/component"
SHARED, ADOPTED = "shared", "adopted"
"""Owners that are no revision: of what all revisions use (CRDs, the namespace, identities, gateways, the node agent),
and of what was there before Heddle and is never removed."""
HUB, IMAGE_NAME = "docker.io/heddle", "heddle"
OWN_IMAGE = MeshSettings().heddle.image

_ISTIO_PROXY = "proxyv2"
_GLOBAL_OF_INJECTION = ("imagePullPolicy", "imagePullSecrets", "logging", "proxy", "proxy_init")
_NOT_OF_INJECTION = ("image", "statusPort")
_ONLY_DISCOVERY = ("resources", "hpaSpec", "service", "serviceAnnotations", "overlays", "env")

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Some objects that are applied together; `title` is for people."""

    name: str
    title: str
    objects: tuple[Raw, ...]


@dataclass(frozen=True, slots=True)
class Rendered:
    namespace: str
    revision: str
    version: str
    parts: tuple[Part, ...]

    @property
    def objects(self) -> list[Raw]:
        return [raw for part in self.parts for raw in part.objects]


def render(spec: OperatorSpec) -> Rendered:
    """Everything that the installation consists of, but for what the components write themselves."""
    namespace = namespace_of(spec)
    revision = spec.revision or DEFAULT_REVISION
    parts = []
    for name, title, objects in _parts(spec):
        finished = [_owned(raw, revision, name) for raw in objects]
        if finished:
            parts.append(Part(name, title, tuple(finished)))
    return Rendered(namespace, revision, _tag(OWN_IMAGE), tuple(parts))


def namespace_of(spec: OperatorSpec) -> str:
    """The control plane's. As in Istio's IstioOperator, `namespace` goes before values.global.istioNamespace."""
    return spec.namespace or spec.values.global_.istio_namespace or CONTROL_NAMESPACE


def image_of(spec: OperatorSpec, component: Component | None = None) -> str:
    """The image of the control plane, or of one component of it."""
    values = spec.values.global_
    given = [part for part in (component, spec.values.pilot, spec, values) if part is not None]
    hub = next((part.hub for part in given if part.hub and part.hub not in ISTIO_HUBS), "")
    foreign = any(part.hub in ISTIO_HUBS for part in given if part.hub)
    tag = "" if foreign and not hub else next((part.tag for part in given if part.tag), "")
    return f"{hub or HUB}/{IMAGE_NAME}:{tag or _tag(OWN_IMAGE)}"


def proxy_image_of(spec: OperatorSpec) -> str:
    """The image of sidecars and gateways."""
    own = spec.values.global_.proxy.image
    if not own or own.rpartition("/")[2].partition(":")[0] == _ISTIO_PROXY:
        return image_of(spec)
    if "/" in own:
        return own
    return image_of(spec).replace(f"/{IMAGE_NAME}:", f"/{own}:")


def _parts(spec: OperatorSpec) -> Iterator[tuple[str, str, list[Raw]]]:
    components, pull, home = spec.components, spec.values.global_.image_pull_policy, namespace_of(spec)
    yield "crds", "Custom resource definitions", _files(spec, "crds")
    yield "base", "Namespace and mesh settings", [_with_config(raw, spec) for raw in _files(spec, "base", deep=False)]
    yield "ca", "Certificate authority", _control_plane(spec, "ca", components.ca)
    yield "discovery", "Discovery", _control_plane(spec, "discovery", components.discovery)
    yield "webhook", "Injection webhook", _control_plane(spec, "webhook", components.webhook)
    if cni_enabled(spec):
        yield "node", "Node agent", _node(spec)
    yield "ingress", "Ingress gateways", gateway_objects("ingress", components.ingress_gateways, home, pull)
    yield "egress", "Egress gateways", gateway_objects("egress", components.egress_gateways, home, pull)
    if components.addons.enabled:
        yield "addons", "Prometheus, Grafana, Jaeger and Kiali", _files(spec, "addons")


def _files(spec: OperatorSpec, folder: str, *, deep: bool = True) -> list[Raw]:
    """Those of `manifests/`, in the control plane's namespace; what is asked for may name others."""
    return [in_namespace(raw, namespace_of(spec)) for raw in files.folder(folder, deep=deep)]


def cni_enabled(spec: OperatorSpec) -> bool:
    """Whether the node agent writes the interception rules, and no init container."""
    said = spec.components.cni.enabled
    return bool(spec.values.cni.enabled) if said is None else said


def _control_plane(spec: OperatorSpec, name: str, own: Component) -> list[Raw]:
    pilot, ours = spec.components.pilot, own.model_fields_set - {"enabled"}
    hubbed = own if {"hub", "tag"} & ours else pilot
    objects = _with_globals(_files(spec, f"base/{name}"), spec, image_of(spec, hubbed))
    for settings in (_from_values(spec, name), _for_all(pilot.k8s, name), own.k8s):
        objects = with_settings(objects, settings)
    if name == "discovery":
        objects = with_overlays(objects, pilot.k8s.overlays)
    return with_overlays(objects, own.k8s.overlays)


def _node(spec: OperatorSpec) -> list[Raw]:
    cni = spec.components.cni
    objects = _with_globals(_files(spec, "node"), spec, image_of(spec, cni))
    for raw in objects:
        if raw["kind"] == "DaemonSet" and spec.values.cni.exclude_namespaces:
            left_out = ",".join(spec.values.cni.exclude_namespaces)
            raw["spec"]["template"]["spec"]["containers"][0].setdefault("args", []).append(
                f"--exclude-namespaces={left_out}"
            )
    return with_overlays(with_settings(objects, cni.k8s), cni.k8s.overlays)


def _from_values(spec: OperatorSpec, name: str) -> KubernetesResources:
    """values.pilot, which is an older way to say components.pilot.k8s."""
    pilot = spec.values.pilot
    fields = ("replica_count", "resources", "node_selector", "tolerations", "affinity", "pod_annotations")
    said = {field: getattr(pilot, field) for field in fields if field in pilot.model_fields_set}
    return _for_all(KubernetesResources.model_construct(_fields_set=set(said), **said), name)


def _for_all(settings: KubernetesResources, name: str) -> KubernetesResources:
    """What `pilot` says to `name`: to discovery all, to the others what concerns every pod."""
    if name == "discovery":
        return settings
    kept = {
        field: getattr(settings, field)
        for field, info in type(settings).model_fields.items()
        if field in settings.model_fields_set and info.alias not in _ONLY_DISCOVERY
    }
    return KubernetesResources.model_construct(_fields_set=set(kept), **kept)


def _with_globals(objects: Sequence[Raw], spec: OperatorSpec, image: str) -> list[Raw]:
    """Image, trust domain and what values.global says to every component of the control plane."""
    budgets = spec.values.global_.default_pod_disruption_budget.enabled is not False
    kept = [raw for raw in objects if budgets or raw["kind"] != "PodDisruptionBudget"]
    return [_with_global(copy.deepcopy(raw), spec, image) for raw in kept]


def _with_global(raw: Raw, spec: OperatorSpec, image: str) -> Raw:
    values = spec.values.global_
    if raw["kind"] == "ServiceAccount" and values.image_pull_secrets:
        raw["imagePullSecrets"] = [{"name": name} for name in values.image_pull_secrets]
    if (
        raw["kind"] == "MutatingWebhookConfiguration"
        and spec.values.sidecar_injector_webhook.enable_namespaces_by_default
    ):
        raw["webhooks"].append(_by_default(raw["webhooks"]))
    if raw["kind"] not in WORKLOADS:
        return raw
    pod = raw["spec"]["template"]["spec"]
    if values.priority_class_name:
        pod["priorityClassName"] = values.priority_class_name
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        container["image"] = image
        if values.image_pull_policy:
            container["imagePullPolicy"] = values.image_pull_policy
        domain = spec.mesh_config.get("trustDomain")
        if domain and "args" in container:
            old = f"--trust-domain={MeshSettings().trust_domain}"
            container["args"] = [f"--trust-domain={domain}" if arg == old else arg for arg in container["args"]]
    if (
        spec.values.sidecar_injector_webhook.enable_namespaces_by_default
        and raw["metadata"]["name"] == "heddle-webhook"
    ):
        pod["containers"][0]["args"].append("--by-default")
    return raw


def _by_default(entries: Sequence[Raw]) -> Raw:
    """Istio's entry for namespaces and pods that say nothing."""
    entry = copy.deepcopy(next(each for each in entries if each["name"].startswith("namespace.")))
    entry["name"] = entry["name"].replace("namespace.", "auto.", 1)
    absent = [{"key": key, "operator": "DoesNotExist"} for key in ("istio-injection", REVISION_LABEL)]
    named = [each for each in entry["namespaceSelector"]["matchExpressions"] if each["key"] != "istio-injection"]
    entry["namespaceSelector"] = {"matchExpressions": [*absent, *named]}
    keys = ("sidecar.istio.io/inject", REVISION_LABEL)
    entry["objectSelector"] = {"matchExpressions": [{"key": key, "operator": "DoesNotExist"} for key in keys]}
    return entry


def _with_config(raw: Raw, spec: OperatorSpec) -> Raw:
    """The ConfigMaps with what is asked for; as they are when nothing is."""
    if raw["kind"] != "ConfigMap":
        return raw
    key, asked = ("mesh", mesh_config) if raw["metadata"]["name"] == MESH_CONFIG else ("values", injector_values)
    before = load(raw["data"][key])
    after = asked(before, spec)
    if after == before:
        return raw
    return {**raw, "data": {**raw["data"], key: value_as_yaml(after)}}


def injector_values(base: Raw, spec: OperatorSpec) -> Raw:
    """The part of Istio's values that injection reads, for ConfigMap `istio-sidecar-injector` (mesh/injector.py)."""
    said: Raw = spec.values.manifest()
    kept: Raw = {}
    general = {name: said.get("global", {}).get(name) for name in _GLOBAL_OF_INJECTION}
    if general["proxy"]:
        general["proxy"] = {name: value for name, value in general["proxy"].items() if name not in _NOT_OF_INJECTION}
    general = {name: value for name, value in general.items() if value}
    for name, part in (("global", general), ("sidecarInjectorWebhook", said.get("sidecarInjectorWebhook"))):
        if part:
            kept[name] = part
    merged: Raw = overlaid(base, kept)
    return merged


def mesh_config(base: Raw, spec: OperatorSpec) -> Raw:
    """The mesh settings as they go into ConfigMap `istio`: those of the files, with what is asked for over them."""
    proxy = spec.values.global_.proxy
    defaults: Raw = {}
    if proxy.status_port is not None:
        defaults["statusPort"] = proxy.status_port
    heddle: Raw = {"image": proxy_image_of(spec)}
    native = _native_sidecars(spec)
    if native is not None:
        heddle["nativeSidecars"] = native
    if cni_enabled(spec):
        heddle["nodeAgent"] = True
        if spec.values.cni.exclude_namespaces:
            heddle["nodeAgentExcludeNamespaces"] = list(spec.values.cni.exclude_namespaces)
    asked: Raw = {"heddle": heddle} | ({"defaultConfig": defaults} if defaults else {})
    merged: Raw = overlaid(overlaid(base, asked), _plain(spec.mesh_config))
    return merged


def native_sidecars(spec: OperatorSpec) -> bool:
    """Whether pods get native sidecars where they do not say otherwise."""
    said = (spec.mesh_config.get("heddle") or {}).get("nativeSidecars", _native_sidecars(spec))
    return MeshSettings().heddle.native_sidecars if said is None else bool(said)


def _native_sidecars(spec: OperatorSpec) -> bool | None:
    said = spec.values.pilot.env.get(NATIVE_SIDECARS) or _variable(spec.components.pilot.k8s, NATIVE_SIDECARS)
    if not said:
        return None
    try:
        return parse_truth(said)
    except InvalidInput as error:
        path = f"spec.values.pilot.env.{NATIVE_SIDECARS}"
        raise InvalidInput(error.message, field=path, hint=error.hint) from None


def _variable(settings: KubernetesResources, name: str) -> str:
    return next((str(each.get("value", "")) for each in settings.env if each["name"] == name), "")


def _owned(raw: Raw, revision: str, part: str) -> Raw:
    """The object as `revision` has it, labelled as part of this installation: of the revision, or of all."""
    owner = revision if is_of_revision(raw) else SHARED
    raw = with_revision(raw, revision)
    meta = raw["metadata"]
    labels = {**(meta.get("labels") or {}), OWNER_LABEL: owner, COMPONENT_LABEL: part}
    return {**raw, "metadata": {**meta, "labels": labels}}


def _tag(image: str) -> str:
    return image.rpartition(":")[2]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
