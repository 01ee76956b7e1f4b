"""What holds for every plan, whatever the objects are."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discovery.plan.memo import Scopes
from discovery.plan.model import Plan, Resolution, Target
from discovery.plan.plan import plan, proxy_of
from mesh.snapshot import Snapshot
from tests.discovery.plan.meshes import MESHES, merged, shuffled

small = settings(max_examples=120, suppress_health_check=list(HealthCheck))


def _plans(snapshot: Snapshot, scopes: Scopes | None = None) -> list[Plan]:
    scopes = scopes or Scopes()
    return [plan(snapshot, proxy_of(snapshot, key), scopes) for key in sorted(snapshot.pods)]


def _targets(made: Plan) -> Iterator[Target]:
    for listener in made.outbound:
        yield from listener.targets
    for gateway in made.gateways:
        for server in gateway.servers:
            yield from server.targets
    for table in made.route_tables:
        for host in table.virtual_hosts:
            for route in host.routes:
                yield from route.targets


def _names(elements: tuple[object, ...]) -> list[str]:
    return [element.name for element in elements]  # type: ignore[attr-defined]


@small
@given(MESHES)
def test_envoy_would_take_it(snapshot: Snapshot) -> None:
    for made in _plans(snapshot):
        destinations = {destination.name: destination for destination in made.destinations}
        assert {target.destination for target in _targets(made)} <= set(destinations)
        assert {port.destination for port in made.inbound} <= set(destinations)
        tables = _names(made.route_tables)
        used = [listener.route_table for listener in made.outbound] + [port.route_table for port in made.inbound]
        used += [server.route_table for gateway in made.gateways for server in gateway.servers]
        assert {name for name in used if name} == set(tables)
        for elements in (made.outbound, made.destinations, made.endpoints, made.route_tables, made.gateways):
            assert _names(elements) == sorted(set(_names(elements)))
        by_endpoints = {d.name for d in made.destinations if d.resolution is Resolution.ENDPOINTS}
        assert set(_names(made.endpoints)) == by_endpoints
        for table in made.route_tables:
            domains = [domain.lower() for host in table.virtual_hosts for domain in host.domains]
            assert len(domains) == len(set(domains))
            assert len(set(_names(table.virtual_hosts))) == len(table.virtual_hosts)
            for host in table.virtual_hosts:
                assert host.domains
                for route in host.routes:
                    assert bool(route.targets) + bool(route.redirect) + bool(route.response) == 1
        for gateway in made.gateways:
            names = [sni for server in gateway.servers for sni in server.sni or ("*",)]
            assert len(names) == len(set(names))
        for problem in made.problems:
            assert problem.message
            assert problem.hint


@small
@given(MESHES, st.randoms(use_true_random=False))
def test_order_does_not_matter(snapshot: Snapshot, random: Random) -> None:
    assert _plans(shuffled(snapshot, random)) == _plans(snapshot)


@small
@given(MESHES, MESHES)
def test_what_earlier_plans_lend_changes_nothing(first: Snapshot, second: Snapshot) -> None:
    scopes = Scopes()
    _plans(first, scopes)
    changed = merged(first, second)
    assert _plans(changed, scopes) == _plans(changed)
    assert _plans(first, scopes) == _plans(first)
