"""What all proxies share: every object of a snapshot under the names by which plans ask for it.

Each part is made again only when the mappings that it comes from are other objects than before.
"""

from __future__ import annotations

from dataclasses import dataclass

from discovery.plan.endpoints import AllBackends, all_backends
from discovery.plan.memo import Memo, Scopes
from discovery.plan.origins import Problem
from discovery.plan.peer_authentication import PeerPolicies, peer_policies
from discovery.plan.places import Regions, regions_of
from discovery.plan.rules import Rules, rules_of
from discovery.plan.services import Services, services_of, wishes_of
from discovery.plan.telemetry import Telemetries, telemetries
from discovery.plan.virtual_services import VirtualServices, virtual_services_of
from mesh.istio.base import IstioObject, age
from mesh.istio.gateway import Gateway
from mesh.settings import CLUSTER_DOMAIN
from mesh.snapshot import Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    services: Services
    virtual_services: VirtualServices
    rules: Rules
    gateways: tuple[IstioObject[Gateway], ...]
    """Oldest first."""
    peers: PeerPolicies
    telemetries: Telemetries
    backends: AllBackends
    regions: Regions
    source_labels: frozenset[str]
    """Label keys of clients that some route asks for: proxies that agree in them get the same routes."""
    problems: tuple[Problem, ...]


def index(snapshot: Snapshot, scopes: Scopes) -> Index:
    return scopes.build("index of", (snapshot,), lambda *_: _index(snapshot, scopes))


def _index(snapshot: Snapshot, scopes: Scopes) -> Index:
    settings = snapshot.settings
    root, trust_domain = settings.root_namespace, settings.trust_domain
    service_objects = snapshot.services
    virtual_objects = snapshot.of("VirtualService")
    rule_objects = snapshot.of("DestinationRule")
    gateway_objects = snapshot.of("Gateway")
    peer_objects = snapshot.of("PeerAuthentication")
    wishes = scopes.build("wishes", (snapshot.namespaces,), lambda *_: wishes_of(snapshot.namespaces))
    services = scopes.build(
        "services",
        (service_objects, wishes),
        lambda memo, _: services_of(memo, service_objects, wishes, CLUSTER_DOMAIN),
    )
    regions = scopes.build("regions", (snapshot.nodes,), lambda *_: regions_of(snapshot.nodes))
    virtual_services = scopes.build(
        "virtual services",
        (virtual_objects,),
        lambda memo, _: virtual_services_of(memo, virtual_objects.values(), CLUSTER_DOMAIN),
    )
    rules = scopes.build(
        "rules", (rule_objects, root), lambda *_: rules_of(rule_objects.values(), CLUSTER_DOMAIN, root)
    )
    gateways = scopes.build("gateways", (gateway_objects,), lambda *_: tuple(sorted(gateway_objects.values(), key=age)))
    peers = scopes.build("peers", (peer_objects, root), lambda memo, _: peer_policies(peer_objects.values(), root))

    telemetry_objects = snapshot.of("Telemetry")
    reports = scopes.build(
        "telemetry",
        (telemetry_objects, settings, services),
        lambda *_: telemetries(telemetry_objects.values(), settings, services),
    )

    def backends(_: Memo, before: AllBackends | None) -> AllBackends:
        return all_backends(before, snapshot.slices, snapshot.pods, peers, trust_domain)

    found = scopes.build("backends", (snapshot.slices, snapshot.pods, peers, trust_domain), backends)

    def whole(*_: object) -> Index:
        return Index(
            services=services,
            virtual_services=virtual_services,
            rules=rules,
            gateways=gateways,
            peers=peers,
            telemetries=reports,
            backends=found,
            regions=regions,
            source_labels=virtual_services.source_labels,
            problems=(*rules.problems, *peers.problems, *reports.problems),
        )

    return scopes.build("index", (services, virtual_services, rules, gateways, peers, reports, found, regions), whole)
