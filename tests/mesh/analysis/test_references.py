"""References among files: looked at only where the files could hold what is named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mesh.analysis.registry import examine
from mesh.analysis.view import View, full_host
from mesh.istio.base import IstioObject
from mesh.kinds import parse_istio
from mesh.objects import Key, parse_service
from mesh.snapshot import Snapshot


def virtual_service(host: str, subset: str = "", namespace: str = "default", **spec: Any) -> IstioObject[Any]:
    destination = {"host": host, **({"subset": subset} if subset else {})}
    return made("VirtualService", "a", namespace, hosts=["a"], http=[{"route": [{"destination": destination}]}], **spec)


def destination_rule(host: str, *subsets: str, namespace: str = "default") -> IstioObject[Any]:
    return made(
        "DestinationRule", f"r{len(subsets)}", namespace, host=host, subsets=[{"name": name} for name in subsets]
    )


def gateway(name: str, namespace: str = "default") -> IstioObject[Any]:
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return made("Gateway", name, namespace, servers=[server])


def made(kind: str, name: str, namespace: str, **spec: Any) -> IstioObject[Any]:
    meta = {"name": name, "namespace": namespace}
    return parse_istio({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec})


def fields(
    *objects: IstioObject[Any], services: Iterable[tuple[str, str]] = (), foreign_hosts: Iterable[str] = ()
) -> list[str]:
    ports = [{"number": 80, "name": "http"}]
    entries = [made("ServiceEntry", "e", "default", hosts=[host], ports=ports) for host in foreign_hosts]
    parsed = [parse_service({"metadata": {"namespace": home, "name": name}}) for home, name in services]
    istio: dict[str, dict[Key, Any]] = {}
    for each in (*objects, *entries):
        istio.setdefault(each.kind, {})[Key(each.namespace, each.name)] = each
    view = View(Snapshot(services={each.meta.key: each for each in parsed}, istio=istio), complete=False)
    found = (each for thing in objects for each in examine(view, thing) if thing.kind == "VirtualService")
    return [each.problem.field for each in found if each.code.number.startswith("HDL01")]


SUBSET = "spec.http[0].route[0].destination.subset"
HOST = "spec.http[0].route[0].destination.host"


def test_short_names_are_of_the_objects_namespace() -> None:
    assert full_host("reviews", "prod") == "reviews.prod.svc.cluster.local"
    assert full_host("reviews.prod", "x") == "reviews.prod"
    assert full_host("*", "x") == "*"
    assert full_host("10.0.0.1", "x") == "10.0.0.1"
    assert full_host("::1", "x") == "::1"


def test_subsets() -> None:
    assert fields(virtual_service("reviews", "v2"), destination_rule("reviews", "v1")) == [SUBSET]
    assert fields(virtual_service("reviews", "v1"), destination_rule("reviews", "v1")) == []
    assert fields(virtual_service("reviews", "v2")) == []
    assert fields(virtual_service("reviews", "v2"), destination_rule("reviews", "v1", namespace="other")) == []
    full = "reviews.default.svc.cluster.local"
    assert fields(virtual_service("reviews", "v2", "other"), destination_rule(full, "v1")) == []
    assert fields(virtual_service(full, "v2", "other"), destination_rule("reviews", "v1")) == [SUBSET]
    assert fields(virtual_service("reviews", "v2"), destination_rule("*.default.svc.cluster.local", "v1")) == [SUBSET]
    both = (destination_rule("reviews", "v1"), destination_rule("reviews", "v2", "v3"))
    assert fields(virtual_service("reviews", "v2"), *both) == []


def test_gateways() -> None:
    bound = virtual_service("reviews", gateways=["mesh", "edge", "infra/public"])
    assert fields(bound) == []
    assert fields(bound, gateway("edge")) == ["spec.gateways[2]"]
    assert fields(bound, gateway("edge"), gateway("public", "infra")) == []
    assert fields(bound, gateway("edge", "infra")) == ["spec.gateways[1]", "spec.gateways[2]"]


def test_services() -> None:
    route = virtual_service("reviews")
    assert fields(route) == []
    assert fields(route, services=[("default", "ratings")]) == [HOST]
    assert fields(route, services=[("default", "reviews")]) == []
    assert fields(route, services=[("other", "ratings")]) == []
    assert fields(virtual_service("example.com"), services=[("default", "ratings")]) == []
    entry = ["*.default.svc.cluster.local"]
    assert fields(route, services=[("default", "ratings")], foreign_hosts=entry) == []
