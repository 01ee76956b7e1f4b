"""Only what changed is rendered again, and forgetting is bounded."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from discovery.envoy.memo import Memo, rendered
from discovery.envoy.render import Resources, render
from discovery.plan.model import Plan
from discovery.plan.reporting import AccessLog, Reporting
from mesh.wire import ResourceType
from tests.support import plans


def _plan() -> Plan:
    names = [f"outbound|80||s{number}.default.svc.cluster.local" for number in range(20)]
    return plans.plan(
        {
            "outbound": [{"name": "o", "address": "0.0.0.0", "port": 80, "protocol": "http", "route_table": "80"}],
            "destinations": [{"name": name, "resolution": "endpoints", "protocol": "http"} for name in names],
            "endpoints": [
                {"name": name, "endpoints": [{"address": "10.0.0.1", "port": 80, "mesh_tls": True}]} for name in names
            ],
            "route_tables": [
                {
                    "name": "80",
                    "virtual_hosts": [
                        {
                            "name": name,
                            "domains": [name],
                            "routes": [{"name": "r", "match": {}, "targets": [{"destination": name}]}],
                        }
                        for name in names
                    ],
                }
            ],
        }
    )


def _different(one: Resources, other: Resources) -> set[tuple[str, str]]:
    return {
        (kind.value, name)
        for kind in one
        for name in one[kind].keys() | other[kind].keys()
        if one[kind].get(name) != other[kind].get(name)
    }


def test_one_endpoint_changes_one_resource() -> None:
    plan = _plan()
    before = render(plan)
    first, *rest = plan.endpoints
    after = render(replace(plan, endpoints=(replace(first, endpoints=()), *rest)))
    assert _different(before, after) == {("endpoints", first.name)}
    kept = rest[0].name
    assert after[ResourceType.ENDPOINTS][kept] is before[ResourceType.ENDPOINTS][kept]


def test_the_context_counts() -> None:
    """The same elements for a proxy of another trust domain or log are rendered anew."""
    plan = _plan()
    logged = render(replace(plan, reporting=Reporting(client_logs=(AccessLog("/dev/stdout"),))))
    assert ("listeners", "o") in _different(render(plan), logged)


def test_equal_elements_render_equally() -> None:
    assert _different(render(_plan()), render(_plan())) == set()


def test_a_version_is_of_the_bytes() -> None:
    assert rendered({"a": 1}) == rendered({"a": 1})
    assert rendered({"a": 1})[0] != rendered({"a": 2})[0]


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    calls: list[str] = []

    def of(element: tuple[str]) -> dict[str, Any]:
        calls.append(element[0])
        return {"name": element[0]}

    memo = Memo(capacity=200)
    used = ("used",)
    for number in range(100):
        assert json.loads(memo.get(used, of)[1]) == {"name": "used"}
        memo.get((f"other-{number}",), of)
    assert calls.count("used") == 1
    assert len(memo) <= 2 * 200 // len(b'{"name":"used"}') + 2
