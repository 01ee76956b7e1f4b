"""Backends that are kept from one snapshot to the next are those that would be made from nothing."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import pytest

from discovery.plan.endpoints import AllBackends, Backends, all_backends
from discovery.plan.peer_authentication import peer_policies
from mesh.objects import EndpointSlice, Key, Pod, parse_endpoint_slice, parse_pod
from tests.discovery.harness import endpoints, pod

POLICIES = peer_policies([], "istio-system")
SERVICES = ("a", "b", "c")


def said(found: AllBackends) -> dict[Key, dict[str, Any]]:
    return {
        key: {field.name: getattr(backends, field.name) for field in fields(Backends)}
        for key, backends in found.of.items()
    }


def a_pod(rng: random.Random, number: int) -> Pod:
    return parse_pod(pod(f"p{number}", f"10.0.0.{number}", account=rng.choice(SERVICES)))


def a_slice(rng: random.Random, number: int) -> EndpointSlice:
    numbers = rng.sample(range(1, 7), rng.randint(0, 4))
    raw = endpoints(rng.choice(SERVICES), 8080, {f"10.0.0.{n}": rng.choice(("", f"p{n}")) for n in numbers})
    raw["metadata"]["name"] = f"slice-{number}"
    return parse_endpoint_slice(raw)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_is_what_would_be_made(seed: int) -> None:
    rng = random.Random(seed)
    slices: dict[Key, EndpointSlice] = {}
    pods: dict[Key, Pod] = {}
    kept: AllBackends | None = None
    for _ in range(100):
        slices, pods = dict(slices), dict(pods)
        for _ in range(rng.randint(1, 3)):
            number = rng.randint(1, 6)
            of_slice, of_pod = Key("default", f"slice-{number}"), Key("default", f"p{number}")
            match rng.randint(1, 4):
                case 1:
                    slices[of_slice] = a_slice(rng, number)
                case 2:
                    slices.pop(of_slice, None)
                case 3:
                    pods[of_pod] = a_pod(rng, number)
                case 4:
                    pods.pop(of_pod, None)
        kept = all_backends(kept, slices, pods, POLICIES, "cluster.local")
        assert said(kept) == said(all_backends(None, slices, pods, POLICIES, "cluster.local"))
        again = all_backends(kept, dict(slices), dict(pods), POLICIES, "cluster.local")
        assert all(again.of[key] is backends for key, backends in kept.of.items()), "nothing changed"


def test_another_trust_domain_or_other_policies_make_all_anew() -> None:
    piece = parse_endpoint_slice(endpoints("a", 8080, {"10.0.0.1": "p1"}))
    one = parse_pod(pod("p1", "10.0.0.1", account="a"))
    slices, pods = {piece.meta.key: piece}, {one.meta.key: one}
    first = all_backends(None, slices, pods, POLICIES, "cluster.local")
    other = all_backends(first, slices, pods, POLICIES, "other.example")
    assert other.of[piece.service].identities == ("spiffe://other.example/ns/default/sa/a",)
    same = all_backends(other, slices, pods, peer_policies([], "istio-system"), "other.example")
    assert same.of[piece.service] is not other.of[piece.service]
