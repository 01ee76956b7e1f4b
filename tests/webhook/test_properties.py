"""What holds for every pod."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import jsonpatch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.problems import ObjectErrors
from tests.webhook.judge import check_like_kubernetes
from webhook.config import InjectionConfig
from webhook.inject import advice, inject
from webhook.patch import check_patch, make_patch
from webhook.probes import KINDS
from webhook.shape import check_pod

CONFIG = InjectionConfig()
WORDS = st.sampled_from(["app", "web", "a-b", "x", "worker", "cache"])
PORT = st.integers(1, 65535)
ACTION = st.one_of(
    st.fixed_dictionaries(
        {"httpGet": st.fixed_dictionaries({"port": PORT | WORDS}, optional={"path": WORDS, "host": WORDS})}
    ),
    st.fixed_dictionaries({"tcpSocket": st.fixed_dictionaries({"port": PORT | WORDS})}),
    st.fixed_dictionaries({"grpc": st.fixed_dictionaries({"port": PORT})}),
    st.just({"exec": {"command": ["true"]}}),
)
PROBE = st.builds(
    lambda action, more: {**action, **more}, ACTION, st.fixed_dictionaries({}, optional={"periodSeconds": PORT})
)
PORTS = st.lists(st.fixed_dictionaries({"containerPort": PORT}, optional={"name": WORDS}), max_size=2)
CONTAINER = st.fixed_dictionaries(
    {"name": WORDS, "image": st.just("x:1")},
    optional={**{field: PROBE for field, _ in KINDS}, "ports": PORTS, "env": st.just([{"name": "A", "value": "1"}])},
)
OWN = st.fixed_dictionaries(
    {"name": st.just("istio-proxy"), "image": st.sampled_from(["auto", "mine:1"])},
    optional={"resources": st.just({"limits": {"cpu": "4"}}), "env": st.just([{"name": "POD_NAME", "value": "me"}])},
)
ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "traffic.sidecar.istio.io/excludeOutboundPorts": st.just("1,2"),
        "sidecar.istio.io/nativeSidecar": st.sampled_from(["true", "false"]),
        "sidecar.istio.io/rewriteAppHTTPProbers": st.sampled_from(["true", "false"]),
        "inject.istio.io/templates": st.sampled_from(["sidecar", "gateway"]),
        "sidecar.istio.io/status": st.just("{}"),
        "with/slash~and.tilde": st.text(max_size=5),
        "prometheus.io/scrape": st.just("false"),
    },
)
META = st.fixed_dictionaries(
    {},
    optional={
        "name": WORDS,
        "labels": st.dictionaries(WORDS, WORDS) | st.none(),
        "annotations": ANNOTATIONS | st.none(),
    },
)


def unique(items: list[dict[str, Any]], but: set[str]) -> list[dict[str, Any]]:
    return list({item["name"]: item for item in items if item["name"] not in but}.values())


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    containers = unique(draw(st.lists(CONTAINER, min_size=1, max_size=3)), set())
    inits = unique(draw(st.lists(CONTAINER, max_size=2)), {c["name"] for c in containers})
    for container in inits:
        if draw(st.booleans()):
            container["restartPolicy"] = "Always"
    if draw(st.booleans()):
        containers.insert(draw(st.integers(0, len(containers))), draw(OWN))
    spec: dict[str, Any] = {"containers": containers}
    if inits or draw(st.booleans()):
        spec["initContainers"] = inits
    if draw(st.booleans()):
        spec["volumes"] = unique(draw(st.lists(st.fixed_dictionaries({"name": WORDS, "emptyDir": st.just({})}))), set())
    return {"apiVersion": "v1", "kind": "Pod", "metadata": draw(META), "spec": spec}


@given(pods())
def test_the_given_pod_is_not_touched_and_twice_is_once(pod: dict[str, Any]) -> None:
    before = copy.deepcopy(pod)
    injected = inject(check_pod(pod, "Pod"), CONFIG)
    assert pod == before
    assert inject(injected, CONFIG) == injected
    advice(pod, CONFIG)


@given(pods())
def test_the_patch_gives_the_injected_pod(pod: dict[str, Any]) -> None:
    injected = inject(pod, CONFIG)
    patch = make_patch(pod, injected)
    check_patch(patch, copy.deepcopy(pod), injected)
    assert jsonpatch.apply_patch(pod, patch) == injected
    assert make_patch(injected, copy.deepcopy(injected)) == []


@given(pods())
def test_what_people_wrote_stays(pod: dict[str, Any]) -> None:
    injected = inject(pod, CONFIG)
    for place in ("containers", "initContainers"):
        mine = [c for c in pod["spec"].get(place, []) if c["name"] != "istio-proxy"]
        theirs = [c for c in injected["spec"].get(place, []) if c["name"] not in ("istio-proxy", "istio-init")]
        assert [without_probes(c) for c in theirs] == [without_probes(c) for c in mine]
    assert [v for v in injected["spec"]["volumes"] if not v["name"].startswith("istio")] == pod["spec"].get(
        "volumes", []
    )
    for field in ("labels", "annotations"):
        before = {k: v for k, v in (pod["metadata"].get(field) or {}).items() if k != "sidecar.istio.io/status"}
        assert before.items() <= injected["metadata"][field].items()


@given(pods())
@settings(max_examples=40)
def test_kubernetes_would_take_it(pod: dict[str, Any]) -> None:
    check_like_kubernetes(inject(pod, CONFIG))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a", "b~/", ""]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=2), JSON, max_size=3), st.dictionaries(st.text(max_size=2), JSON, max_size=3))
def test_a_patch_between_any_two_values(before: dict[str, Any], after: dict[str, Any]) -> None:
    check_patch(make_patch(before, after), copy.deepcopy(before), after)


@given(JSON)
def test_no_json_is_a_crash(value: Any) -> None:
    with contextlib.suppress(ObjectErrors):
        check_pod(value, "Pod")
    with contextlib.suppress(ObjectErrors):
        check_pod({"metadata": value, "spec": value}, "Pod")


def without_probes(container: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in container.items() if key not in {field for field, _ in KINDS}}
