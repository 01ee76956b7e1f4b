"""Where a client's requests may go: one destination for each port of each service, and for each subset of its rule.

Which destinations there are, and by which rule, follows from services and rules (`Wanted`); who answers and with which
identities follows from endpoints. The two are apart so that a changed endpoint touches its own destinations only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from discovery.plan.endpoints import NOBODY, Backends, chosen
from discovery.plan.hosts import default_sni, destination_name
from discovery.plan.model import Balance, ClientTls, Destination, EndpointSet, Resolution, Role, TlsMode
from discovery.plan.origins import Origin, Problem
from discovery.plan.rules import Policy, Rule, policy_for
from discovery.plan.services import Entry, Port
from mesh.istio.destination_rule import ClientTLSMode, ClientTLSSettings
from mesh.objects import Key

PASSTHROUGH = Destination("PassthroughCluster", Resolution.ORIGINAL)
BLACK_HOLE = Destination("BlackHoleCluster", Resolution.NOWHERE)
INBOUND_PASSTHROUGH = Destination("InboundPassthroughCluster", Resolution.ORIGINAL)
ALWAYS = (PASSTHROUGH, BLACK_HOLE, INBOUND_PASSTHROUGH)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A destination before its endpoints are known. `labels` are the subset's, sorted."""

    entry: Entry
    port: Port
    name: str
    subset: str
    labels: tuple[tuple[str, str], ...]
    policy: Policy
    origins: tuple[Origin, ...]


def wanted(entry: Entry, port: Port, subset: str, rule: Rule | None) -> Wanted:
    labels = tuple(sorted(rule.subsets[subset].labels.items())) if rule and subset else ()
    return Wanted(
        entry=entry,
        port=port,
        name=destination_name(port.number, subset, entry.host),
        subset=subset,
        labels=labels,
        policy=policy_for(rule, port.number, subset, sticky=entry.service.session_affinity),
        origins=(entry.origin, *(rule.origins if rule else ())),
    )


class Provided(NamedTuple):
    """A destination with its endpoints (None where it is not by endpoint set), and whom it was made from."""

    backends: Backends
    destination: Destination
    endpoints: EndpointSet | None


Memory = dict[Wanted, Provided]


def provide(want: Wanted, backends: Mapping[Key, Backends], before: Memory, role: Role, auto_mtls: bool) -> Provided:
    """The destination as it stands; objects of `before` wherever they are equal to what would be made anew."""
    found = backends.get(want.entry.key, NOBODY)
    last = before.get(want)
    if last is not None and last.backends is found:
        return last
    destination = _destination(want, found, role, auto_mtls)
    endpoints = None
    if destination.resolution is Resolution.ENDPOINTS:
        endpoints = EndpointSet(want.name, chosen(found, want.port.name, want.labels))
    if last is not None:
        if last.destination == destination:
            destination = last.destination
        if last.endpoints == endpoints:
            endpoints = last.endpoints
    return Provided(found, destination, endpoints)


def nobody_answers(entry: Entry, backends: Backends) -> Problem | None:
    """What to say about a service that selects pods and has no ready endpoint."""
    if not entry.service.selector or entry.is_external or any(backends.by_port.values()):
        return None
    if backends.known:
        return Problem(
            entry.origin,
            f"none of its {backends.known} endpoints is ready: requests to it fail with 503",
            f"look at the pods: kubectl -n {entry.namespace} get pods -l {_selector(entry)}",
        )
    return Problem(
        Origin("Service", entry.namespace, entry.key.name, "spec.selector"),
        f"no pod with an address matches {_selector(entry)}: requests to it fail with 503",
        "correct the selector, or the labels of the pods that it means",
    )


def _selector(entry: Entry) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(entry.service.selector.items()))


def _destination(want: Wanted, backends: Backends, role: Role, auto_mtls: bool) -> Destination:
    entry, port, policy = want.entry, want.port, want.policy
    resolution = _resolution(entry, policy, role)
    external = resolution is Resolution.DNS
    return Destination(
        name=want.name,
        resolution=resolution,
        protocol=port.protocol,
        host=entry.host,
        service=str(entry.key),
        address=entry.service.external_name if external else "",
        port=port.number if external else 0,
        tls=_tls(want, resolution, backends, auto_mtls),
        balance=policy.balance,
        hash_by=policy.hash_by,
        limits=policy.limits,
        outliers=policy.outliers,
        origins=want.origins,
    )


def _resolution(entry: Entry, policy: Policy, role: Role) -> Resolution:
    """A headless service is dialled by pod address, which a sidecar keeps; a gateway knows no such address."""
    if entry.is_external:
        return Resolution.DNS
    if role is Role.SIDECAR and (entry.service.headless or policy.balance is Balance.PASSTHROUGH):
        return Resolution.ORIGINAL
    return Resolution.ENDPOINTS


def _tls(want: Wanted, resolution: Resolution, backends: Backends, auto_mtls: bool) -> ClientTls | None:
    """The rule's mode, or else mesh TLS to whoever takes it.

    Source: https://istio.io/latest/docs/ops/configuration/traffic-management/tls-configuration/#auto-mtls
    """
    settings = want.policy.tls
    sni = default_sni(want.port.number, want.subset, want.entry.host)
    if settings is not None:
        return _configured(settings, sni, backends.identities)
    if not auto_mtls or resolution is Resolution.DNS:
        return None
    if resolution is Resolution.ORIGINAL:  # without endpoints Envoy cannot tell one from the other: all or none
        return ClientTls(TlsMode.ISTIO_MUTUAL, False, sni, backends.identities) if backends.all_mesh else None
    return ClientTls(TlsMode.ISTIO_MUTUAL, True, sni, backends.identities)


def _configured(settings: ClientTLSSettings, sni: str, identities: tuple[str, ...]) -> ClientTls | None:
    if settings.mode is ClientTLSMode.DISABLE:
        return None
    if settings.mode is ClientTLSMode.ISTIO_MUTUAL:
        names = tuple(sorted(settings.subject_alt_names)) or identities
        return ClientTls(TlsMode.ISTIO_MUTUAL, False, settings.sni or sni, names)
    return ClientTls(
        mode=TlsMode(settings.mode.value),
        sni=settings.sni,
        subject_alt_names=tuple(sorted(settings.subject_alt_names)),
        ca_file=settings.ca_certificates,
        certificate_file=settings.client_certificate,
        private_key_file=settings.private_key,
        skip_verification=bool(settings.insecure_skip_verify),
    )
