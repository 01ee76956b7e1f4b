"""Merging, templates, Prometheus' annotations and the injector's settings, each by itself."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.injector import parse_values, unheeded_values
from mesh.problems import ObjectErrors
from webhook.config import InjectionConfig
from webhook.inject import inject
from webhook.injector import chosen_templates, injector_settings
from webhook.merge import merge_container, merge_pod
from webhook.prometheus import merged
from webhook.templates import parse_template

Raw = dict[str, Any]
PATCHES: list[tuple[Raw, Raw, Raw]] = [
    ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": None, "e": 3}}, {"a": 1, "b": {"d": 2, "e": 3}}),
    ({"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}),
    (
        {"env": [{"name": "A", "valueFrom": {"x": 1}}, {"name": "B", "value": "2"}]},
        {"env": [{"name": "C", "value": "3"}, {"name": "A", "value": "1"}]},
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}]},
    ),
    (
        {"ports": [{"containerPort": 1, "name": "x"}]},
        {"ports": [{"containerPort": 1, "protocol": "UDP"}, {"containerPort": 1, "protocol": "TCP", "name": "y"}]},
        {
            "ports": [
                {"containerPort": 1, "name": "y", "protocol": "TCP"},
                {"containerPort": 1, "protocol": "UDP"},
            ]
        },
    ),
    (
        {"readinessProbe": {"httpGet": {"port": 1}}},
        {"readinessProbe": {"exec": {"command": ["true"]}}},
        {"readinessProbe": {"exec": {"command": ["true"]}}},
    ),
    (
        {"env": [{"name": "A"}, {"name": "B"}]},
        {"env": [{"name": "A", "$patch": "delete"}]},
        {"env": [{"name": "B"}]},
    ),
    (
        {"securityContext": {"runAsUser": 1, "privileged": False}},
        {"securityContext": {"$patch": "replace", "runAsUser": 2}},
        {"securityContext": {"runAsUser": 2}},
    ),
    ({}, {"resources": {"$patch": "replace", "limits": {"cpu": "1"}}}, {"resources": {"limits": {"cpu": "1"}}}),
]


@pytest.mark.parametrize(("before", "patch", "after"), PATCHES)
def test_a_container_is_merged_as_kubectl_patch_does(before: Raw, patch: Raw, after: Raw) -> None:
    kept = copy.deepcopy((before, patch))
    assert merge_container(before, patch) == after
    assert (before, patch) == kept


def test_a_pod_is_merged_by_names() -> None:
    pod = {
        "metadata": {"labels": {"a": "1"}, "finalizers": ["x"]},
        "spec": {
            "containers": [{"name": "web", "image": "w"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "a"}],
        },
    }
    patch = {
        "metadata": {"labels": {"b": "2"}, "finalizers": ["y", "x"]},
        "spec": {
            "containers": [{"name": "log", "image": "l"}, {"name": "web", "env": [{"name": "A"}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
            "imagePullSecrets": [{"name": "r"}],
            "tolerations": [{"key": "b"}],
        },
    }
    assert merge_pod(pod, patch) == {
        "metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]},
        "spec": {
            "containers": [{"name": "web", "image": "w", "env": [{"name": "A"}]}, {"name": "log", "image": "l"}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
            "imagePullSecrets": [{"name": "r"}],
            "tolerations": [{"key": "b"}],
        },
    }


VALUES = {
    "pod.name": "web",
    "pod.namespace": "shop",
    "pod.serviceAccount": "web",
    "pod.workload": "web",
    "pod.labels": {"app": "web", "evil": "x: [y]\n- {{ pod.name }}"},
    "pod.annotations": {},
    "mesh.trustDomain": "cluster.local",
    "mesh.revision": "default",
    "mesh.controlNamespace": "istio-system",
    "proxy.image": "heddle:1",
}


def filled(text: str) -> Any:
    return parse_template("t", {"spec": {"schedulerName": text}}).patch(VALUES)["spec"]["schedulerName"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{ pod.name }}-{{pod.namespace}}", "web-shop"),
        ('{{ pod.labels["app"] }}', "web"),
        ("{{ pod.labels['none'] | default 'nobody' }}!", "nobody!"),
        ('{{ pod.labels["none"] | default "" }}', ""),
        ('{{ pod.labels["evil"] }}', "x: [y]\n- {{ pod.name }}"),
    ],
)
def test_placeholders(text: str, expected: str) -> None:
    assert filled(text) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ if .Values.x }}", "it cannot be read"),
        ("spec: {a: '{{ .Values.global.hub }}'}", "is not a placeholder"),
        ("spec: {a: '{{ pod.spec }}'}", "is not a placeholder"),
        ("spec: {a: '{{ pod.labels }}'}", "is not a placeholder"),
        ("spec: {a: '{{ pod.name[\"x\"] }}'}", "is not a placeholder"),
        ("spec: {a: '{{ pod.name | upper }}'}", "is not a placeholder"),
        ("spec: {a: 'x {{ pod.name'}", "a {{ has no }}"),
        ("spec: {'{{ pod.name }}': 1}", "cannot be the name of a field"),
        ("spec: {a: {{ pod.name }}}", "it cannot be read"),
        ("status: {}", "is not part of a template"),
        ("spec: []", "must be a mapping"),
        ("spec: {containers: [{image: x}]}", "with a name each"),
        ("spec: {volumes: {}}", "must be a list"),
        ("metadata: {labels: {a: 1}}", "must be a mapping of texts"),
        ("", "must be a mapping with metadata or spec"),
        ("spec: {a: &x [*x]}", "it cannot be read"),
        ("[" * 100_000, "more than"),
    ],
)
def test_what_is_no_template_is_named(template: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_template("mine", template)
    assert words in str(caught.value)
    assert "templates.mine" in str(caught.value)


def test_what_a_pod_lacks_refuses_it() -> None:
    data = {"config": 'templates: {mine: \'spec: {schedulerName: "{{ pod.labels[\\"x\\"] }}"}\'}'}
    config = InjectionConfig(injector=injector_settings(data))
    annotations = {"inject.istio.io/templates": "sidecar,mine"}
    pod = {"metadata": {"name": "web", "annotations": annotations}, "spec": {"containers": [{"name": "a"}]}}
    with pytest.raises(ObjectErrors, match=r'template mine: this pod has no pod.labels\["x"\]'):
        inject(pod, config)


@given(st.text(max_size=40))
def test_any_text_is_a_template_or_not(text: str) -> None:
    for form in (text, "{{" + text + "}}"):
        try:
            parse_template("x", {"spec": {"a": form}}).patch(VALUES)
            parse_template("x", form).patch(VALUES)
        except InvalidInput:
            continue


def test_templates_are_chosen_by_name_alias_and_default() -> None:
    data = {"config": json.dumps({
        "templates": {"a": "spec: {x: 1}", "b": {"spec": {"x": 2}}, "sidecar": "{{ Istio's }}"},
        "defaultTemplates": ["both"], "aliases": {"both": ["sidecar", "b"]}})}  # fmt: skip
    settings = injector_settings(data)
    built_in, others = chosen_templates(settings, settings.default_templates)
    assert (built_in, [template.name for template in others]) == ("sidecar", ["b"])
    assert chosen_templates(settings, ["a"])[0] == ""
    for names, words in (
        (["sidecar", "gateway"], "not both"),
        (["grpc-agent"], "gRPC without a proxy"),
        (["c"], "there is no template 'c' (known: sidecar, gateway, a, b, both)"),
    ):
        with pytest.raises(InvalidInput) as caught:
            chosen_templates(settings, names)
        assert words in str(caught.value)


def test_a_template_alone_makes_no_member_of_the_mesh() -> None:
    config = InjectionConfig(injector=injector_settings({"config": "templates: {a: 'spec: {nodeName: n}'}"}))
    pod = {
        "metadata": {"name": "web", "annotations": {"inject.istio.io/templates": "a"}},
        "spec": {"containers": [{"name": "web"}, {"name": "istio-proxy"}]},
    }
    assert inject(pod, config) == {**pod, "spec": {**pod["spec"], "nodeName": "n"}}


def test_the_proxy_is_told_where_an_unusual_control_plane_is() -> None:
    pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web"}]}}

    def told(config: InjectionConfig) -> str | None:
        proxy = inject(pod, config)["spec"]["initContainers"][1]
        return next((each["value"] for each in proxy["env"] if each["name"] == "CONTROL_NAMESPACE"), None)

    assert (told(InjectionConfig()), told(InjectionConfig(control_namespace="mesh"))) == (None, "mesh")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"values": "global: {proxy: {readinessPeriodSeconds: often}}"}, "global.proxy.readinessPeriodSeconds"),
        ({"values": "[1]"}, "data.values: it is a mapping"),
        ({"values": "a: ["}, "data.values: it cannot be read at line"),
        ({"values": "global: {proxy: {excludeInboundPorts: http}}"}, "traffic.sidecar.istio.io/excludeInboundPorts"),
        ({"config": "templates: [1]"}, "data.config: templates"),
        ({"config": "defaultTemplates: [mine]"}, "there is no template 'mine'"),
    ],
)
def test_wrong_settings_name_their_field(data: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        injector_settings(data)
    assert words in str(caught.value)


def test_values_as_istio_has_them() -> None:
    text = """
global:
  hub: docker.io/istio
  imagePullPolicy: IfNotPresent
  logging: {level: "default:info"}
  proxy:
    autoInject: enabled
    excludeInboundPorts: ""
    includeIPRanges: "10.0.0.0/8"
    readinessFailureThreshold: 4
    resources: {limits: {cpu: 2000m, memory: 1024Mi}, requests: {cpu: 100m}}
    startupProbe: {enabled: true, failureThreshold: 300}
    lifecycle: null
sidecarInjectorWebhook: {rewriteAppHTTPProbe: false, enableNamespacesByDefault: true}
pilot: {env: {}}
"""
    settings = injector_settings({"values": text})
    assert settings.options.include_outbound_cidrs == ("10.0.0.0/8",)
    assert settings.options.rewrite_probes is False
    assert settings.options.agent_log_level == "info"
    assert settings.resources["requests"] == {"cpu": "100m"}
    assert settings.startup_probe.failure_threshold == 300
    assert settings.by_default
    assert unheeded_values(parse_values(text)) == ["global.hub", "pilot"]


@pytest.mark.parametrize(
    ("annotations", "merge", "expected", "app"),
    [
        ({}, True, {"scrape": "true", "port": "15020", "path": "/stats/prometheus"}, ""),
        ({}, False, {}, ""),
        ({"prometheus.io/scrape": "false", "prometheus.io/port": "1"}, True, {"scrape": "false", "port": "1"}, ""),
        (
            {"prometheus.io/port": "9090"},
            True,
            {"scrape": "true", "port": "15020", "path": "/stats/prometheus"},
            '{"port":"9090"}',
        ),
        ({"prometheus.io/port": "15020"}, True, {"port": "15020"}, ""),
        ({"prometheus.io/port": "http"}, True, {"port": "http"}, ""),
        ({"prometheus.io/port": "0"}, True, {"port": "0"}, ""),
        (
            {"prometheus.io.scrape": "true", "prometheus-io/path": "/x", "prometheus.io/scheme": "https"},
            True,
            {"scrape": "true", "port": "15020", "path": "/stats/prometheus"},
            '{"path":"/x","scheme":"https","scrape":"true"}',
        ),
    ],
)
def test_prometheus_is_sent_to_the_agent(
    annotations: dict[str, str], merge: bool, expected: dict[str, str], app: str
) -> None:
    result = merged({**annotations, "kept": "x"}, 15020, merge=merge)
    assert result.annotations == {"kept": "x", **{f"prometheus.io/{name}": text for name, text in expected.items()}}
    assert result.app == app
