"""What discovery says of ProxyConfigs: how many pods were injected with what they say now."""

from __future__ import annotations

import json
from typing import Any

from discovery.object_status import seen, status_of
from discovery.proxy_configs import counts, findings
from discovery.tally import Count, Thing
from mesh.kinds import find_kind
from mesh.objects import SIDECAR_STATUS_ANNOTATION, Key, Pod, parse_pod
from mesh.proxy_configs import KIND, Object, fingerprint
from mesh.snapshot import Snapshot
from tests.discovery.harness import pod
from tests.mesh.test_proxy_configs import config

ROOT = "istio-system"
MESH = config("mesh", ROOT, concurrency=3)
WEB = config("web", "shop", {"app": "web"}, concurrency=0)


def snapshot(*objects: Object, pods: list[Pod]) -> Snapshot:
    return Snapshot(
        istio={KIND: {Key(each.namespace, each.name): each for each in objects}},
        pods={each.meta.key: each for each in pods},
    )


def injected(name: str, taken: Any) -> Pod:
    status = json.dumps({"proxyConfigs": taken}) if isinstance(taken, dict) else taken
    annotations = {SIDECAR_STATUS_ANNOTATION: status}
    return parse_pod(pod(name, "10.0.0.1", namespace="shop", labels={"app": name[:3]}, annotations=annotations))


def test_pods_have_it_that_were_injected_with_what_it_says() -> None:
    now = {"istio-system/mesh": fingerprint(MESH.spec), "shop/web": fingerprint(WEB.spec)}
    pods = [
        injected("web-0", now),
        injected("web-1", now | {"shop/web": "before"}),
        injected("db", {"istio-system/mesh": fingerprint(MESH.spec)}),
        injected("old", "{}"),
        injected("odd", "["),
        injected("odder", {"istio-system/mesh": ["x"]}),
        injected("not here", now),
    ]
    found = counts(snapshot(MESH, WEB, pods=pods), [each.meta.key for each in pods[:-1]] + [Key("shop", "gone")])
    assert found == {Thing(KIND, ROOT, "mesh"): Count(3, 6), Thing(KIND, "shop", "web"): Count(1, 2)}
    assert counts(snapshot(pods=pods), [pods[0].meta.key]) == {}


def test_its_status_says_that_a_restart_is_needed() -> None:
    entry = find_kind("networking.istio.io/v1beta1", KIND)
    assert entry is not None
    raw = {"metadata": {"name": "web", "namespace": "shop", "generation": 1}}

    def reconciled(count: Count) -> tuple[str, str]:
        status = status_of(seen(entry, raw), (), count, "2026-01-01T00:00:00Z")
        assert status is not None
        (found,) = [each for each in status["conditions"] if each["type"] == "Reconciled"]
        return found["status"], found["message"]

    assert reconciled(Count(1, 2)) == (
        "False",
        "1 of 2 proxies have it; the others take it when their pods are restarted",
    )
    assert reconciled(Count(2, 2)) == ("True", "2 of 2 proxies have it")


def test_the_younger_of_two_is_named() -> None:
    (found,) = findings(snapshot(MESH, config("other", ROOT, created="2026-01-01T00:00:00Z"), pods=[]))
    assert (found.namespace, found.name) == (ROOT, "other")
    assert "istio-system/mesh is older" in found.message
