"""What a change does not touch is the very same object as before it, so that rendering can be kept by identity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from discovery.plan.memo import MOST_SCOPES, Memo, Scopes, changed_keys
from discovery.plan.model import Plan
from discovery.plan.plan import plan, proxy_of
from mesh.errors import NotFound
from mesh.kinds import parse_istio
from mesh.objects import Key
from mesh.snapshot import Snapshot
from tests.support.snapshots import mesh_of

CLIENT = Key("default", "client")


def _virtual_service(name: str, weight: int = 1) -> Any:
    route = [{"destination": {"host": name}, "weight": weight}, {"destination": {"host": "svc-0"}, "weight": 1}]
    return parse_istio(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": name},
            "spec": {"hosts": [name], "http": [{"route": route}]},
        }
    )


@pytest.fixture
def mesh() -> Snapshot:
    routed = {Key("default", name): _virtual_service(name) for name in ("svc-1", "svc-2")}
    return mesh_of(4, 3, istio={"VirtualService": routed})


def _hosts(made: Plan) -> dict[str, object]:
    return {f"{table.name}/{host.name}": host for table in made.route_tables for host in table.virtual_hosts}


def _by_name(elements: tuple[Any, ...]) -> dict[str, Any]:
    return {element.name: element for element in elements}


def _other(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Names whose objects are not the same ones."""
    return {name for name in before.keys() | after.keys() if before.get(name) is not after.get(name)}


def test_endpoint(mesh: Snapshot) -> None:
    scopes = Scopes()
    before = plan(mesh, proxy_of(mesh, CLIENT), scopes)
    key = Key("default", "svc-2-0")
    piece = mesh.slices[key]
    gone = replace(piece, endpoints=piece.endpoints[1:])
    changed = mesh.replacing(slices={**mesh.slices, key: gone})
    after = plan(changed, proxy_of(changed, CLIENT), scopes)
    assert _other(_by_name(before.endpoints), _by_name(after.endpoints)) == {
        "outbound|8080||svc-2.default.svc.cluster.local"
    }
    assert _other(_by_name(before.destinations), _by_name(after.destinations)) == set()
    assert _other(_by_name(before.outbound), _by_name(after.outbound)) == set()
    assert _other(_hosts(before), _hosts(after)) == set()
    assert after == plan(changed, proxy_of(changed, CLIENT), Scopes())


def test_pod_that_moves_no_endpoint(mesh: Snapshot) -> None:
    scopes = Scopes()
    before = plan(mesh, proxy_of(mesh, CLIENT), scopes)
    key = Key("default", "svc-2-0")
    changed = mesh.replacing(pods={**mesh.pods, key: replace(mesh.pods[key])})
    after = plan(changed, proxy_of(changed, CLIENT), scopes)
    assert _other(_by_name(before.endpoints), _by_name(after.endpoints)) == set()
    assert _other(_by_name(before.destinations), _by_name(after.destinations)) == set()


def test_new_service_account_changes_its_destination_only(mesh: Snapshot) -> None:
    scopes = Scopes()
    before = plan(mesh, proxy_of(mesh, CLIENT), scopes)
    key = Key("default", "svc-2-0")
    changed = mesh.replacing(pods={**mesh.pods, key: replace(mesh.pods[key], service_account="other")})
    after = plan(changed, proxy_of(changed, CLIENT), scopes)
    name = "outbound|8080||svc-2.default.svc.cluster.local"
    assert _other(_by_name(before.destinations), _by_name(after.destinations)) == {name}
    tls = _by_name(after.destinations)[name].tls
    assert tls.server_identities == (
        "spiffe://cluster.local/ns/default/sa/other",
        "spiffe://cluster.local/ns/default/sa/svc-2",
    )


def test_virtual_service(mesh: Snapshot) -> None:
    scopes = Scopes()
    before = plan(mesh, proxy_of(mesh, CLIENT), scopes)
    found = {**mesh.of("VirtualService"), Key("default", "svc-1"): _virtual_service("svc-1", 9)}
    changed = mesh.replacing(istio={"VirtualService": found})
    after = plan(changed, proxy_of(changed, CLIENT), scopes)
    assert _other(_hosts(before), _hosts(after)) == {"8080/svc-1.default.svc.cluster.local:8080"}
    assert _other(_by_name(before.destinations), _by_name(after.destinations)) == set()
    assert _other(_by_name(before.endpoints), _by_name(after.endpoints)) == set()


def test_new_service_leaves_others(mesh: Snapshot) -> None:
    larger = mesh_of(5, 3)
    scopes = Scopes()
    before = plan(mesh, proxy_of(mesh, CLIENT), scopes)
    key = Key("default", "svc-4")
    changed = mesh.replacing(services={**mesh.services, key: larger.services[key]})
    after = plan(changed, proxy_of(changed, CLIENT), scopes)
    assert _other(_hosts(before), _hosts(after)) == {"8080/svc-4.default.svc.cluster.local:8080"}


def test_proxies_share(mesh: Snapshot) -> None:
    scopes = Scopes()
    one = plan(mesh, proxy_of(mesh, CLIENT), scopes)
    other = plan(mesh, proxy_of(mesh, Key("default", "svc-1-0")), scopes)
    assert one.endpoints is other.endpoints
    assert _by_name(one.route_tables)["8080"] is _by_name(other.route_tables)["8080"]


def test_the_same_plan_while_nothing_changes(mesh: Snapshot) -> None:
    scopes = Scopes()
    proxy = proxy_of(mesh, CLIENT)
    first = plan(mesh, proxy, scopes)
    assert plan(mesh.replacing(namespaces={}, resource_version=7), proxy_of(mesh, CLIENT), scopes) is first
    settings = mesh.settings.model_copy(update={"access_log_file": "/dev/stdout"})
    assert plan(mesh.replacing(settings=settings), proxy, scopes).reporting.client_logs[0].path == "/dev/stdout"


def test_unknown_pod(mesh: Snapshot) -> None:
    with pytest.raises(NotFound, match="default/nobody"):
        proxy_of(mesh, Key("default", "nobody"))


def test_memo_forgets_what_is_not_asked_for() -> None:
    calls: list[int] = []

    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    memo = Memo()
    for asked in ((1, 2), (2,), (1, 2)):
        memo.begin()
        assert [memo(double, number) for number in asked] == [2 * number for number in asked]
        memo.end()
    assert calls == [1, 2, 1]


def test_scopes_keep_the_latest() -> None:
    scopes = Scopes()
    names = [f"scope {number}" for number in range(MOST_SCOPES + 1)]
    for name in names:
        scopes.build(name, (name,), lambda *_: "old")
    assert scopes.build(names[-1], (names[-1],), lambda *_: "new") == "old"
    assert scopes.build(names[-1], ("other input",), lambda *_: "new") == "new"
    assert scopes.build(names[0], (names[0],), lambda *_: "new") == "new"


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, set()),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"b"}),
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, set()),
        ({"a": "1"}, {"a": "1", "c": "2"}, {"c"}),
        ({"a": "1", "c": "2"}, {"a": "1"}, {"c"}),
    ],
)
def test_changed_keys(before: dict[str, str], now: dict[str, str], changed: set[str]) -> None:
    assert changed_keys(before, now) == changed
