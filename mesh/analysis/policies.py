"""Policies: for nobody, against everybody, and those that shut out clients without a sidecar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.view import View, Workload
from mesh.istio.authorization_policy import Action, AuthorizationPolicy, Rule
from mesh.istio.base import IstioObject
from mesh.istio.peer_authentication import MutualTLSMode, PeerAuthentication
from mesh.istio.selectors import GATEWAY_NAME
from mesh.istio.telemetry import Telemetry
from mesh.objects import Key
from mesh.problems import Path

FOR_NOBODY = Code(
    "HDL0401",
    "selects-no-workload",
    Severity.WARNING,
    "The selector of a policy, Sidecar, Telemetry, EnvoyFilter, WasmPlugin or ProxyConfig chooses no workload, or a "
    "Telemetry's `targetRefs` a Gateway without pods: it has no effect.",
    "Correct the labels, or deploy the workload. A selector chooses in its own namespace; from the root one in all, "
    "except those of Telemetry, Sidecar and ProxyConfig.",
    ("IST0127",),
)
DENIES_ALL = Code(
    "HDL0402",
    "denies-everything",
    Severity.WARNING,
    "An AuthorizationPolicy lets nothing through to the workloads that it is for.",
    "Add rules for what is to be allowed. If nothing is, this is as it should be.",
)
SHUTS_OUT = Code(
    "HDL0403",
    "strict-with-clients-outside",
    Severity.WARNING,
    "Mutual TLS becomes STRICT while pods without a sidecar are beside the workloads, or for workloads that were seen "
    "taking plain text (`--on-mesh` asks their proxies): what such clients send is refused.",
    "Inject them first, or use PERMISSIVE until they are.",
)
CODES = (FOR_NOBODY, DENIES_ALL, SHUTS_OUT)
SELECTING = (
    "PeerAuthentication",
    "AuthorizationPolicy",
    "RequestAuthentication",
    "Sidecar",
    "Telemetry",
    "EnvoyFilter",
    "WasmPlugin",
    "ProxyConfig",
)
_MOST_NAMES = 3
_NOT_APPLICATIONS = frozenset({"kube-system", "kube-public", "kube-node-lease"})


def selector_chooses(view: View, thing: IstioObject[Any]) -> Iterator[Finding]:
    if not (view.complete or view.workloads):
        return
    path, labels = selector_of(thing)
    if labels and not _chosen(view, thing, labels):
        hint = "correct the labels, or deploy the workload"
        yield FOR_NOBODY.on(thing, *path, says=f"{_no_pod(view, thing, labels)}: it has no effect", hint=hint)


def targets_have_pods(view: View, thing: IstioObject[Telemetry]) -> Iterator[Finding]:
    """Of the targets only Gateways: that others are for nobody the object itself says."""
    if not (view.complete or view.workloads):
        return
    for path, target in thing.spec.targets_at:
        labels = {GATEWAY_NAME: target.name}
        if target.is_gateway and not _chosen(view, thing, labels):
            says = f"{_no_pod(view, thing, labels)}: this target is nobody"
            hint = "correct the name, or label the gateway's pods"
            yield FOR_NOBODY.on(thing, "spec", *path, "name", says=says, hint=hint)


def _chosen(view: View, thing: IstioObject[Any], labels: Mapping[str, str]) -> bool:
    return any(each.matches(labels) for each in view.chosen_from(thing))


def _no_pod(view: View, thing: IstioObject[Any], labels: Mapping[str, str]) -> str:
    spelled = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    where = "" if view.reaches_all(thing) else f" of namespace {thing.namespace}"
    return f"no pod{where} has {spelled}{view.among}"


def selector_of(thing: IstioObject[Any]) -> tuple[Path, Mapping[str, str]]:
    """The path and the labels of the object's selector; no labels where it has none."""
    selector = getattr(thing.spec, "selector", None)
    if selector is not None:
        return ("spec", "selector", "matchLabels"), selector.match_labels
    selector = getattr(thing.spec, "workload_selector", None)
    return ("spec", "workloadSelector", "labels"), selector.labels if selector is not None else {}


def has_targets(thing: IstioObject[Any]) -> bool:
    """Whether it is for what `targetRefs` names."""
    return bool(getattr(thing.spec, "target_refs", ()) or getattr(thing.spec, "target_ref", None))


def lets_something_through(view: View, thing: IstioObject[AuthorizationPolicy]) -> Iterator[Finding]:
    spec = thing.spec
    whom = _whom(view, thing)
    if spec.action is Action.ALLOW and not spec.rules_:
        says = f"ALLOW without rules lets nothing through to {whom}"
        yield DENIES_ALL.on(
            thing, "spec", "rules", says=says, hint="add a rule; an empty one, {}, is for every request"
        )
    for index, rule in enumerate(spec.rules_):
        if spec.action is Action.DENY and rule == Rule():
            says = f"this rule is for every request: nothing is let through to {whom}"
            hint = "say in from, to or when what is denied"
            yield DENIES_ALL.on(thing, "spec", "rules", index, says=says, hint=hint)


def _whom(view: View, thing: IstioObject[Any]) -> str:
    _, labels = selector_of(thing)
    if has_targets(thing):
        return "its targets"
    everywhere = thing.namespace == view.snapshot.settings.root_namespace
    home = "the mesh" if everywhere else f"namespace {thing.namespace}"
    return f"the workloads of {home} that it selects" if labels else f"any workload of {home}"


def strict_leaves_nobody_out(view: View, thing: IstioObject[PeerAuthentication]) -> Iterator[Finding]:
    """Pods without a sidecar can send nothing but plain text. Who else does is seen where proxies were asked."""
    for path, mode in _modes(thing.spec):
        if mode is not MutualTLSMode.STRICT:
            continue
        outside = list(_outside(view, thing))
        if outside:
            names = ", ".join(f"{each.namespace}/{each.name}" for each in outside[:_MOST_NAMES])
            more = f" and {len(outside) - _MOST_NAMES} more" if len(outside) > _MOST_NAMES else ""
            says = f"pods without a sidecar cannot speak mutual TLS, and what they send is refused: {names}{more}"
            yield SHUTS_OUT.on(thing, *path, says=says, hint="inject them first, or use PERMISSIVE until they are")
        yield from _seen_in_plain_text(view, thing, path)
        return


def asks_for_strict(spec: PeerAuthentication) -> bool:
    """For any port."""
    return any(mode is MutualTLSMode.STRICT for _, mode in _modes(spec))


def _seen_in_plain_text(view: View, thing: IstioObject[PeerAuthentication], path: Path) -> Iterator[Finding]:
    _, labels = selector_of(thing)
    chosen = (each for each in view.chosen_from(thing) if each.matches(labels))
    counts = {key: view.plain_text.get(key, 0) for key in (Key(each.namespace, each.name) for each in chosen)}
    taking = sorted((key for key, count in counts.items() if count), key=lambda key: (-counts[key], key))
    if taking:
        names = ", ".join(f"{key} ({counts[key]})" for key in taking[:_MOST_NAMES])
        more = f" and {len(taking) - _MOST_NAMES} more pods" if len(taking) > _MOST_NAMES else ""
        says = f"requests and connections came in plain text, counted since each proxy started: to {names}{more}"
        hint = "find their clients (heddle top shows them as unknown), or use PERMISSIVE until none comes"
        yield SHUTS_OUT.on(thing, *path, says=says, hint=hint)


def _modes(spec: PeerAuthentication) -> Iterator[tuple[Path, MutualTLSMode]]:
    if spec.mtls is not None:
        yield ("spec", "mtls", "mode"), spec.mtls.mode
    for port, mtls in spec.port_level_mtls.items():
        yield ("spec", "portLevelMtls", port, "mode"), mtls.mode


def _outside(view: View, thing: IstioObject[PeerAuthentication]) -> Iterator[Workload]:
    settings = view.snapshot.settings
    for each in view.chosen_from(thing):
        if not each.has_sidecar and each.namespace not in {*_NOT_APPLICATIONS, settings.root_namespace}:
            yield each
