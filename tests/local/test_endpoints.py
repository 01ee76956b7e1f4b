"""Cluster addresses and endpoint slices."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.endpoints import DNS_ADDRESS, SERVICE_RANGE, cluster_ip, endpoint_slices, with_cluster_ip
from local.store import Raw
from mesh.errors import Conflict
from mesh.objects import Key

names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


def service(name: str = "web", **spec: object) -> Raw:
    body = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}], **spec}
    return {"kind": "Service", "metadata": {"namespace": "n", "name": name}, "spec": body}


def pod(name: str, ip: str, port: int = 8080, *, ready: bool = True, phase: str = "Running", app: str = "web") -> Raw:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "kind": "Pod",
        "metadata": {"namespace": "n", "name": name, "uid": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
        "status": {"phase": phase, "podIP": ip, "conditions": conditions},
    }


@given(st.lists(st.tuples(names, names), unique=True, max_size=50))
def test_addresses_are_distinct_and_within_the_range(keys: list[tuple[str, str]]) -> None:
    taken: dict[str, Key] = {}
    for namespace, name in keys:
        address = cluster_ip(Key(namespace, name), taken)
        assert address not in taken
        assert ipaddress.ip_address(address) in SERVICE_RANGE
        assert address != DNS_ADDRESS
        taken[address] = Key(namespace, name)


def test_an_address_is_the_same_from_run_to_run() -> None:
    assert cluster_ip(Key("n", "web"), {}) == cluster_ip(Key("n", "web"), {})


def test_headless_and_external_services_get_none() -> None:
    assert with_cluster_ip(service(clusterIP="None"), {})["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in with_cluster_ip(service(type="ExternalName"), {})["spec"]


def test_an_address_of_the_manifest_is_kept_and_must_be_free() -> None:
    assert with_cluster_ip(service(clusterIP="10.96.0.99"), {})["spec"]["clusterIP"] == "10.96.0.99"
    with pytest.raises(
        Conflict, match=r"Service n/web asks for address 10\.96\.0\.99, which service n/other has"
    ) as got:
        with_cluster_ip(service(clusterIP="10.96.0.99"), {"10.96.0.99": Key("n", "other")})
    assert got.value.field == "spec.clusterIP"


def test_a_slice_has_the_selected_pods_with_their_readiness() -> None:
    pods = [pod("a", "10.244.0.2"), pod("b", "10.244.0.3", ready=False), pod("c", "10.244.0.4", app="else")]
    (only,) = endpoint_slices([service()], pods)
    assert only["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert only["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert [(e["addresses"][0], e["conditions"]["ready"], e["targetRef"]["name"]) for e in only["endpoints"]] == [
        ("10.244.0.2", True, "a"),
        ("10.244.0.3", False, "b"),
    ]


def test_pods_whose_named_port_differs_get_slices_of_their_own() -> None:
    slices = endpoint_slices([service()], [pod("a", "10.244.0.2", 8080), pod("b", "10.244.0.3", 9090)])
    assert sorted(raw["ports"][0]["port"] for raw in slices) == [8080, 9090]
    assert len({raw["metadata"]["name"] for raw in slices}) == 2


def test_a_pod_that_ended_or_has_no_address_is_no_endpoint() -> None:
    assert endpoint_slices([service()], [pod("a", ""), pod("b", "10.244.0.3", phase="Succeeded")]) == []


def test_a_service_without_selector_has_none_made_for_it() -> None:
    assert endpoint_slices([service(selector=None)], [pod("a", "10.244.0.2")]) == []


@pytest.mark.parametrize(
    ("target", "number"), [(9000, 9000), ("9000", 9000), ("web", 8080), (None, 80), ("none", None)]
)
def test_target_ports(target: object, number: int | None) -> None:
    port = {"name": "http", "port": 80} | ({} if target is None else {"targetPort": target})
    slices = endpoint_slices([service(ports=[port])], [pod("a", "10.244.0.2")])
    assert [p["port"] for raw in slices for p in raw["ports"]] == ([] if number is None else [number])
