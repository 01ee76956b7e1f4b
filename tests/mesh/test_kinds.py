"""The table of kinds."""

from __future__ import annotations

import re

import pytest

from mesh.kinds import HEDDLE, KINDS, find_kind, group_of, is_istio, kind_of, parse_istio, watched_by, without_effect
from mesh.problems import ObjectErrors


def test_every_entry_stands_once() -> None:
    assert len({(kind.group, kind.kind) for kind in KINDS}) == len(KINDS)
    assert len({(kind.group, kind.plural) for kind in KINDS}) == len(KINDS)


def test_istios_kinds_and_heddles_own_have_a_model() -> None:
    for kind in KINDS:
        assert (kind.model is not None) == (kind.of_istio or kind.group == HEDDLE), kind.kind
        assert not kind.planned or kind.of_istio
        assert set(kind.watched_by) <= {"webhook", "ca", "discovery", "node", "engine"}
        assert kind.model is None or kind.model.__name__ == kind.kind


def test_plurals_are_those_of_the_api() -> None:
    for kind in KINDS:
        assert re.fullmatch(r"[a-z]+s", kind.plural)
        assert kind.plural.startswith(kind.kind.lower().removesuffix("y"))


def test_paths_and_versions() -> None:
    service, virtual_service = find_kind("v1", "Service"), find_kind("networking.istio.io/v1alpha3", "VirtualService")
    assert service is not None
    assert virtual_service is not None
    assert (service.api_version, service.path) == ("v1", "/api/v1/services")
    assert virtual_service.api_version == "networking.istio.io/v1"
    assert virtual_service.path == "/apis/networking.istio.io/v1/virtualservices"
    assert find_kind("gateway.networking.k8s.io/v1", "Gateway") is None


def test_groups() -> None:
    assert group_of("v1") == ""
    assert group_of("apps/v1") == "apps"
    assert is_istio("security.istio.io/v1")
    assert not is_istio("istio.io/v1")
    assert not is_istio("gateway.networking.k8s.io/v1")


def test_discovery_watches_what_plans_are_made_of() -> None:
    names = {kind.kind for kind in watched_by("discovery")}
    assert {"Service", "EndpointSlice", "Pod", "VirtualService", "Gateway", "PeerAuthentication"} <= names


@pytest.mark.parametrize(
    ("raw", "field", "hint"),
    [
        ({}, "apiVersion", "such as networking.istio.io/v1"),
        ({"apiVersion": "networking.istio.io/v1"}, "kind", "such as VirtualService"),
        ({"apiVersion": "networking.istio.io/v1", "kind": "Gatway"}, "kind", "did you mean Gateway?"),
        ({"apiVersion": "networking.istio.io/v1", "kind": "Zzz"}, "kind", "known: VirtualService"),
        ({"apiVersion": "networking.istio.io/v3", "kind": "Gateway"}, "apiVersion", "write networking.istio.io/v1"),
        ({"apiVersion": "v1", "kind": "Gateway"}, "apiVersion", "write apiVersion: networking.istio.io/v1"),
    ],
)
def test_unknown_kinds_name_the_nearest(raw: dict[str, object], field: str, hint: str) -> None:
    with pytest.raises(ObjectErrors) as caught:
        kind_of(raw)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert problem.hint.startswith(hint)


def test_kinds_not_acted_upon_are_checked_and_say_so_once() -> None:
    raw = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "x"}}
    spec = {"url": "file:///a.wasm", "priority": 1}
    (warning,) = without_effect(parse_istio({**raw, "spec": spec}))
    assert str(warning) == "kind: Heddle knows WasmPlugin and does not act upon it yet: it has no effect"
    with pytest.raises(ObjectErrors, match=r"spec\.url"):
        parse_istio({**raw, "spec": {"url": ""}})


def test_kinds_of_kubernetes_are_not_parsed_here() -> None:
    with pytest.raises(ObjectErrors, match="Istio has no kind 'Pod'"):
        parse_istio({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}})
