"""Whose plans come from an object, and who has applied it."""

from __future__ import annotations

from dataclasses import replace

from discovery.peers import tally_from, tally_json, united
from discovery.plan.memo import Scopes
from discovery.plan.plan import plan, proxy_of
from discovery.tally import Count, Member, Refusal, Thing, of_layer, of_own, tally, things_of
from mesh.objects import Key
from mesh.wire import Applied, Rejection
from tests.support.snapshots import snapshot

TEXT = """
{kind: Pod, metadata: {name: client}, spec: {containers: []}}
---
{kind: Pod, metadata: {name: shop, labels: {app: shop}}, spec: {containers: []}}
---
{kind: Service, metadata: {name: shop}, spec: {selector: {app: shop}, ports: [{name: http, port: 80}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec: {hosts: [shop], http: [{route: [{destination: {host: shop}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: default}
spec: {host: shop, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: shop, namespace: default}
spec: {selector: {matchLabels: {app: shop}}, mtls: {mode: STRICT}}
"""
ROUTES = Thing("VirtualService", "default", "shop")
RULE = Thing("DestinationRule", "default", "shop")
PEERS = Thing("PeerAuthentication", "default", "shop")
HOST = "80/shop.default.svc.cluster.local:80"


def members(*generations: int) -> list[Member]:
    """Proxies of the client's pod and of the shop's, by turns."""
    mesh, scopes = snapshot(TEXT), Scopes()
    plans = [plan(mesh, proxy_of(mesh, Key("default", name)), scopes) for name in ("client", "shop")]
    return [Member(f"default/{n}", plans[n % 2], generation) for n, generation in enumerate(generations)]


def test_every_proxy_that_an_object_is_for_is_counted_with_what_it_has() -> None:
    counts = tally(members(5, 7, 6, 7), {ROUTES: 6, RULE: 8, PEERS: 7})
    assert counts == {ROUTES: Count(3, 4), RULE: Count(0, 4), PEERS: Count(2, 2)}


def test_layers_make_no_difference() -> None:
    found = members(5, 7, 6)
    whole = [replace(each, plan=replace(each.plan, shared=None)) for each in found]
    since = {ROUTES: 6, RULE: 7, PEERS: 7}
    assert tally(found, since) == tally(whole, since)
    for each in found:
        assert each.plan.shared is not None
        assert things_of(each.plan) == of_layer(each.plan.shared) | of_own(each.plan)


def test_a_refusal_is_of_the_objects_that_the_resource_comes_from() -> None:
    one = members(7)[0]
    rejected = {"virtualHosts": Applied(3, "", (Rejection(HOST, "no", ""),))}
    counts = tally([replace(one, applied=rejected)], {})
    refusal = Refusal("default/0", HOST, "no")
    assert counts[ROUTES] == Count(1, 1, (refusal,))
    assert counts[RULE] == Count(1, 1)
    cluster = {"clusters": Applied(3, "", (Rejection("outbound|80||shop.default.svc.cluster.local", "no", ""),))}
    counts = tally([replace(one, applied=cluster)], {})
    assert (len(counts[RULE].refused), len(counts[ROUTES].refused)) == (1, 0)


def test_counts_of_replicas_come_together() -> None:
    refusal = Refusal("default/x", "r", "no")
    own = {ROUTES: (2, Count(1, 2))}
    other = tally_from(tally_json({ROUTES: (2, Count(3, 3, (refusal,))), RULE: (1, Count(1, 1))}))
    assert united(own, [other], ROUTES, 2) == Count(4, 5, (refusal,))
    behind = {ROUTES: (1, Count(3, 3, (refusal,)))}
    assert united(own, [behind], ROUTES, 2) == Count(1, 5)
    assert united({}, [], ROUTES, 2) == Count()
