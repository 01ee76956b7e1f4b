"""webhook/decision.py, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.errors import InvalidInput
from webhook.config import InjectionConfig
from webhook.decision import decide
from webhook.inject import inject
from webhook.injector import injector_settings

CONFIG = InjectionConfig()
ENABLED, DISABLED = {"istio-injection": "enabled"}, {"istio-injection": "disabled"}
WISH = "sidecar.istio.io/inject"


def pod(labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shop", "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "web", "image": "web:1"}], **spec},
    }


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-node-lease"])
def test_some_namespaces_never(namespace: str) -> None:
    decision = decide(pod({WISH: "true"}), namespace, ENABLED, CONFIG)
    assert not decision.inject
    assert namespace in decision.reason


def test_in_the_control_planes_own_namespace_only_what_says_yes_itself() -> None:
    for ours in (pod(), pod({"istio.io/rev": "default"}), pod({WISH: "false"}), pod(annotations={WISH: "true"})):
        assert not decide(ours, "istio-system", ENABLED, CONFIG).inject
    assert decide(pod({WISH: "true"}), "istio-system", {}, CONFIG).inject


def test_the_control_planes_own_namespace_is_a_setting() -> None:
    elsewhere = InjectionConfig(control_namespace="mesh")
    assert not decide(pod(), "mesh", ENABLED, elsewhere).inject
    assert decide(pod(), "istio-system", ENABLED, elsewhere).inject


def test_the_hosts_network_never() -> None:
    decision = decide(pod({WISH: "true"}, hostNetwork=True), "shop", ENABLED, CONFIG)
    assert decision[:2] == (False, "it uses the host's network, where rules would intercept the whole node")


@pytest.mark.parametrize(
    ("namespace", "labels", "annotations", "expected", "because"),
    [
        (ENABLED, {}, {}, True, "namespace shop is labelled istio-injection=enabled"),
        (DISABLED, {}, {}, False, "namespace shop is labelled istio-injection=disabled"),
        ({}, {}, {}, False, "neither it nor namespace shop asks for it"),
        # whoever says no wins
        (ENABLED, {WISH: "false"}, {}, False, "its label sidecar.istio.io/inject is 'false'"),
        (ENABLED, {}, {WISH: "false"}, False, "its annotation sidecar.istio.io/inject is 'false'"),
        (DISABLED, {WISH: "true"}, {}, False, "istio-injection=disabled"),
        ({"istio.io/rev": "default"}, {WISH: "false"}, {}, False, "its label"),
        # the label goes before the annotation
        ({}, {WISH: "true"}, {WISH: "false"}, True, "its label sidecar.istio.io/inject is 'true'"),
        (ENABLED, {WISH: "false"}, {WISH: "true"}, False, "its label"),
        ({}, {}, {WISH: "true"}, True, "its annotation"),
        ({}, {WISH: "yes"}, {}, True, "its label"),
        (ENABLED, {WISH: "maybe"}, {}, False, "'maybe', which is neither"),
        # revisions
        ({"istio.io/rev": "default"}, {}, {}, True, "namespace shop is labelled istio.io/rev=default"),
        ({"istio.io/rev": "canary"}, {}, {}, False, "istio.io/rev=canary, and this is revision default"),
        ({"istio.io/rev": "canary"}, {WISH: "true"}, {}, False, "istio.io/rev=canary"),
        ({"istio.io/rev": "canary", **ENABLED}, {}, {}, True, "istio-injection=enabled"),
        ({"istio.io/rev": "default", **DISABLED}, {}, {}, False, "istio-injection=disabled"),
        ({}, {"istio.io/rev": "default"}, {}, True, "it is labelled istio.io/rev=default"),
        ({}, {"istio.io/rev": "canary", WISH: "true"}, {}, False, "it is labelled istio.io/rev=canary"),
        (ENABLED, {"istio.io/rev": "canary"}, {}, True, "istio-injection=enabled"),
        ({"istio-injection": "sometimes"}, {}, {}, False, "istio-injection=sometimes, which means nothing"),
    ],
)
def test_labels(
    namespace: dict[str, str], labels: dict[str, str], annotations: dict[str, str], expected: bool, because: str
) -> None:
    decision = decide(pod(labels, annotations), "shop", namespace, CONFIG)
    assert decision.inject is expected
    assert because in decision.reason


def test_tags() -> None:
    tagged = InjectionConfig(revision="canary", tags=frozenset({"prod", "default"}))
    by_tag = decide(pod(), "shop", {"istio.io/rev": "prod"}, tagged)
    assert by_tag[:2] == (True, "namespace shop is labelled istio.io/rev=prod, a tag of revision canary")
    assert decide(pod({"istio.io/rev": "default"}), "shop", {}, tagged).inject
    other = decide(pod(), "shop", {"istio.io/rev": "old"}, tagged)
    assert (other.inject, other.revision) == (False, "old")


def test_by_default() -> None:
    everywhere = InjectionConfig(by_default=True)
    assert decide(pod(), "shop", {}, everywhere).inject
    assert not decide(pod(), "shop", DISABLED, everywhere).inject
    assert not decide(pod(), "shop", {"istio.io/rev": "canary"}, everywhere).inject


def test_once_is_enough() -> None:
    injected = inject(pod(), CONFIG)
    assert decide(injected, "shop", ENABLED, CONFIG)[:2] == (False, "it has its sidecar already")


def test_the_annotation_without_the_container_is_no_sidecar() -> None:
    copied = pod(annotations={"sidecar.istio.io/status": "{}"})
    assert decide(copied, "shop", ENABLED, CONFIG).inject
    assert "istio-proxy" in {c["name"] for c in inject(copied, CONFIG)["spec"]["initContainers"]}


SELECTORS = """
policy: {policy}
neverInjectSelector:
- matchExpressions: [{{key: batch, operator: Exists}}]
- matchLabels: {{tier: plain}}
- {{}}
alwaysInjectSelector:
- matchExpressions: [{{key: tier, operator: In, values: [front, back]}}, {{key: batch, operator: DoesNotExist}}]
"""


@pytest.mark.parametrize(
    ("policy", "namespace", "labels", "expected"),
    [
        ("enabled", ENABLED, {}, True),
        ("enabled", ENABLED, {"batch": ""}, False),
        ("enabled", ENABLED, {"tier": "plain"}, False),
        ("enabled", ENABLED, {"tier": "plain", WISH: "true"}, True),  # who says it himself is heard
        ("enabled", ENABLED, {"tier": "back", "batch": ""}, False),  # never goes before always
        ("enabled", {"istio.io/rev": "default"}, {"batch": ""}, False),
        ("enabled", DISABLED, {"tier": "front"}, False),
        ("enabled", {}, {"tier": "front"}, True),
        ("enabled", {}, {}, False),
        ("disabled", ENABLED, {}, False),
        ("disabled", ENABLED, {"tier": "back"}, True),
        ("disabled", ENABLED, {WISH: "true"}, True),
        ("disabled", ENABLED, {WISH: "false", "tier": "back"}, False),
    ],
)
def test_the_meshs_selectors_decide_about_pods_that_say_nothing(
    policy: str, namespace: dict[str, str], labels: dict[str, str], expected: bool
) -> None:
    config = InjectionConfig(injector=injector_settings({"config": SELECTORS.format(policy=policy)}))
    decision = decide(pod(labels), "shop", namespace, config)
    assert decision.inject is expected, decision.reason


def test_an_installation_sets_the_selectors_by_its_values() -> None:
    said = "sidecarInjectorWebhook: {neverInjectSelector: [{matchLabels: {job: x}}]}"
    config = InjectionConfig(injector=injector_settings({"values": said}))
    assert decide(pod({"job": "x"}), "shop", ENABLED, config) == (
        False,
        "its labels match neverInjectSelector of the mesh's injection settings",
        "",
    )
    with pytest.raises(InvalidInput, match=r"data.config: neverInjectSelector.0.matchExpressions.0.operator"):
        injector_settings({"config": "neverInjectSelector: [{matchExpressions: [{key: a, operator: Is}]}]"})
