"""TLS towards services: rules that say otherwise than the servers, and servers that nobody verifies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.view import View, Workload
from mesh.istio.base import IstioObject, age
from mesh.istio.destination_rule import ClientTLSMode, ClientTLSSettings, DestinationRule, TrafficPolicy
from mesh.istio.peer_authentication import MutualTLSMode
from mesh.problems import Path

CONFLICT = Code(
    "HDL0406",
    "tls-conflict",
    Severity.ERROR,
    "The `tls` of a DestinationRule and the PeerAuthentication of the servers exclude each other: requests fail "
    "with 503.",
    "Remove `tls` from the rule: sidecars use mutual TLS with those who take it.",
    ("IST0113",),
)
NOT_VERIFIED = Code(
    "HDL0407",
    "server-not-verified",
    Severity.WARNING,
    "A DestinationRule takes any certificate of the server for good.",
    "Remove `insecureSkipVerify`, and set `caCertificates` where the server's authority is not a public one.",
    ("IST0128", "IST0129"),
)
CODES = (CONFLICT, NOT_VERIFIED)


def tls_fits_the_servers(view: View, thing: IstioObject[DestinationRule]) -> Iterator[Finding]:
    service = view.service_hosts.get(view.full(thing.spec.host, thing.namespace))
    if service is None or not service.selector:
        return
    behind = [each for each in view.workloads.get(service.meta.namespace, ()) if each.matches(service.selector)]
    for path, tls in _settings(thing.spec):
        for workload in behind:
            why = _conflict(view, tls.mode, workload)
            if why:
                says = f"{tls.mode.value} towards {workload.namespace}/{workload.name}, and {why}: requests fail"
                hint = "remove tls from the rule: who takes mutual TLS gets it without"
                yield CONFLICT.on(thing, *path, "mode", says=says, hint=hint, value=tls.mode.value)
                break


def servers_are_verified(view: View, thing: IstioObject[DestinationRule]) -> Iterator[Finding]:
    for path, tls in _settings(thing.spec):
        if tls.insecure_skip_verify:
            says = f"any certificate of {thing.spec.host} is taken for good"
            hint = "remove it, and set caCertificates where the server's authority is not a public one"
            yield NOT_VERIFIED.on(thing, *path, "insecureSkipVerify", says=says, hint=hint)


def _settings(spec: DestinationRule) -> Iterator[tuple[Path, ClientTLSSettings]]:
    """Each `tls` in the rule, and where it stands."""
    policies: list[tuple[Path, TrafficPolicy | None]] = [(("spec", "trafficPolicy"), spec.traffic_policy)]
    policies += [
        (("spec", "subsets", at, "trafficPolicy"), subset.traffic_policy) for at, subset in enumerate(spec.subsets)
    ]
    for path, policy in policies:
        if policy is None:
            continue
        if policy.tls is not None:
            yield (*path, "tls"), policy.tls
        for at, port in enumerate(policy.port_level_settings):
            if port.tls is not None:
                yield (*path, "portLevelSettings", at, "tls"), port.tls


def _conflict(view: View, mode: ClientTLSMode, workload: Workload) -> str:
    """Why connections in this mode fail there; "" when they do not, or some ports may take them."""
    if mode is ClientTLSMode.ISTIO_MUTUAL and not workload.has_sidecar:
        return "it has no sidecar" if view.complete else ""
    if not workload.has_sidecar:
        return ""
    policy, taken = _mode(view, workload)
    if policy is None:
        return ""
    if taken is MutualTLSMode.STRICT and mode is not ClientTLSMode.ISTIO_MUTUAL:
        return f"{policy} lets in mutual TLS only"
    if taken is MutualTLSMode.DISABLE and mode is ClientTLSMode.ISTIO_MUTUAL:
        return f"{policy} lets in plain text only"
    return ""


def _mode(view: View, workload: Workload) -> tuple[IstioObject[Any] | None, MutualTLSMode]:
    """The PeerAuthentication that decides for the workload, where it has no ports of their own.

    Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/ (precedence)
    """
    root = view.snapshot.settings.root_namespace
    narrow, wide, widest = [], [], []
    for each in sorted(view.snapshot.of("PeerAuthentication").values(), key=age):
        labels = each.spec.selector.match_labels if each.spec.selector is not None else {}
        if labels and each.namespace == workload.namespace and workload.matches(labels):
            narrow.append(each)
        elif not labels and each.namespace == workload.namespace:
            wide.append(each)
        elif not labels and each.namespace == root:
            widest.append(each)
    if narrow and narrow[0].spec.port_level_mtls:
        return None, MutualTLSMode.UNSET
    for each in (*narrow[:1], *wide[:1], *widest[:1]):
        if each.spec.mtls is not None and each.spec.mtls.mode is not MutualTLSMode.UNSET:
            return each, each.spec.mtls.mode
    return None, MutualTLSMode.PERMISSIVE
