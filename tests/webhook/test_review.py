"""webhook/review.py: what API servers may send, and what they get."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jsonpatch
import pytest

from mesh.errors import InvalidInput, TooLarge, Unavailable, Unsupported
from tests.webhook.harness import REVIEWS, review_of
from webhook.config import InjectionConfig
from webhook.envelope import MAX_OBJECT
from webhook.inject import inject
from webhook.review import Outcome, Result, review

CONFIG = InjectionConfig()
JSON = "application/json"


def enabled(_namespace: str) -> Mapping[str, str]:
    return {"istio-injection": "enabled"}


def send(value: object, content_type: str = JSON) -> Outcome:
    return review(json.dumps(value).encode(), content_type, enabled, CONFIG)


def response(outcome: Outcome) -> dict[str, Any]:
    envelope = json.loads(outcome.body)
    assert (envelope["apiVersion"], envelope["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    found: dict[str, Any] = envelope["response"]
    assert found["uid"] == review_of(None)["request"]["uid"]
    return found


def changed(**meta: Any) -> dict[str, Any]:
    return {**REVIEWS, "metadata": {**REVIEWS["metadata"], **meta}}


def test_an_ordinary_pod() -> None:
    outcome = send(review_of(REVIEWS), "application/json; charset=utf-8")
    answer = response(outcome)
    assert outcome.result is Result.INJECTED
    assert outcome.about == "Pod default/reviews-v1-7d6bdb6c5-*"
    assert answer["allowed"] is True
    assert answer["patchType"] == "JSONPatch"
    assert "warnings" not in answer
    patch = json.loads(base64.b64decode(answer["patch"]))
    assert jsonpatch.apply_patch(REVIEWS, patch) == inject(REVIEWS, CONFIG)
    assert not any(operation["path"] in ("", "/spec", "/spec/containers") for operation in patch)


def test_a_pod_that_is_let_through() -> None:
    outcome = send(review_of(changed(labels={"sidecar.istio.io/inject": "false"})))
    assert outcome.result is Result.SKIPPED
    assert response(outcome) == {"uid": review_of(None)["request"]["uid"], "allowed": True}


def test_the_namespace_is_that_of_the_request() -> None:
    asked: list[str] = []

    def labels(namespace: str) -> Mapping[str, str]:
        asked.append(namespace)
        return {}

    body = json.dumps(review_of(changed(namespace=None), namespace="shop")).encode()
    assert review(body, JSON, labels, CONFIG).result is Result.SKIPPED
    assert asked == ["shop"]


def test_a_tag_that_the_watch_has_not_shown_is_asked_for() -> None:
    asked: list[str] = []

    def leads_here(revision: str) -> bool:
        asked.append(revision)
        return revision == "prod"

    def by_revision(namespace: str) -> Mapping[str, str]:
        return {"istio.io/rev": namespace}

    for namespace, result in (("prod", Result.INJECTED), ("old", Result.SKIPPED), ("default", Result.INJECTED)):
        body = json.dumps(review_of(changed(namespace=namespace), namespace=namespace)).encode()
        assert review(body, JSON, by_revision, CONFIG, leads_here).result is result
    assert asked == ["prod", "old"]


def test_namespaces_that_never_get_a_sidecar_are_not_looked_up() -> None:
    def labels(_namespace: str) -> Mapping[str, str]:
        raise Unavailable("no API server")

    body = json.dumps(review_of(REVIEWS, namespace="kube-system")).encode()
    assert review(body, JSON, labels, CONFIG).result is Result.SKIPPED
    with pytest.raises(Unavailable):
        review(json.dumps(review_of(REVIEWS)).encode(), JSON, labels, CONFIG)


def test_a_wrong_annotation_refuses_the_pod_with_name_annotation_value_and_way_out() -> None:
    wrong = {
        "traffic.sidecar.istio.io/excludeInboundPorts": "http",
        "sidecar.istio.io/interceptionMode": "TPROXY",
        "proxy.istio.io/config": "concurrency: many",
    }
    outcome = send(review_of(changed(annotations=wrong)))
    answer = response(outcome)
    assert outcome.result is Result.DENIED
    assert answer["allowed"] is False
    assert answer["status"]["code"] == 400
    message = answer["status"]["message"]
    for words in (
        "Pod default/reviews-v1-7d6bdb6c5-*",
        'metadata.annotations["traffic.sidecar.istio.io/excludeInboundPorts"]',
        "'http' is not a port",
        "use numbers from 1 to 65535",
        "'TPROXY' is not supported",
        "REDIRECT is the only mode",
    ):
        assert words in message


def test_a_wrong_proxy_config_names_its_field() -> None:
    outcome = send(review_of(changed(annotations={"proxy.istio.io/config": "concurrency: many"})))
    assert 'metadata.annotations["proxy.istio.io/config"].concurrency' in response(outcome)["status"]["message"]
    for tracing, says in (
        ("{sampling: 101}", "tracing.sampling: Input should be less than or equal to 100"),
        ("{zipkin: {address: zipkin}}", "tracing.zipkin.address: String should match"),
        ("{customTags: {a: {}}}", "customTags.a: the tag has no value"),
        ("{customTags: {a: {formatter: {value: '%NOPE%'}}}}", "there is no command %NOPE%"),
    ):
        outcome = send(review_of(changed(annotations={"proxy.istio.io/config": f"tracing: {tracing}"})))
        assert says in response(outcome)["status"]["message"]


def test_warnings() -> None:
    annotations = {
        "sidecar.istio.io/enableCoreDump": "true",
        "sidecar.istio.io/proxyImage": "docker.io/istio/proxyv2:1.28.0",
        "traffic.sidecar.istio.io/excludeOutboundPort": "1",
        "proxy.istio.io/config": "{holdApplicationUntilProxyStarts: true, tracing: {sampling: 5}, meshId: a}",
        "example.com/mine": "x",
        "prometheus.io/port": "http",
    }
    warnings = "\n".join(response(send(review_of(changed(annotations=annotations))))["warnings"])
    assert "sidecar.istio.io/enableCoreDump is not acted on: it would take a privileged container" in warnings
    assert "docker.io/istio/proxyv2:1.28.0 is taken for Istio's own; the proxy runs docker.io/heddle/heddle" in warnings
    assert "did you mean traffic.sidecar.istio.io/excludeOutboundPorts?" in warnings
    assert "proxy.istio.io/config: meshId is not acted on" in warnings
    assert "tracing" not in warnings
    assert "prometheus.io/port: 'http' is not a port" in warnings
    assert "example.com" not in warnings


def test_the_proxys_user_bypasses_the_mesh() -> None:
    pod = {**REVIEWS, "spec": {**REVIEWS["spec"], "securityContext": {"runAsUser": 1337}}}
    assert "container reviews runs as user 1337" in response(send(review_of(pod)))["warnings"][0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("spec", None, "spec: is missing"),
        ("spec", [], "spec: must be an object, not an empty list"),
        ("spec", {}, "spec.containers: is missing"),
        ("spec", {"containers": {}}, "spec.containers: must be a list, not an empty mapping"),
        ("spec", {"containers": ["web"]}, "spec.containers[0]: must be an object, not 'web'"),
        ("spec", {"containers": [{"image": "x"}]}, "spec.containers[0].name: is missing"),
        (
            "spec",
            {"containers": [{"name": "a", "ports": [{}]}]},
            "spec.containers[0].ports[0].containerPort: is missing",
        ),
        ("spec", {"containers": [], "volumes": [{}]}, "spec.volumes[0].name: is missing"),
        ("spec", {"containers": [], "hostNetwork": "yes"}, "spec.hostNetwork: must be true or false, not 'yes'"),
        ("metadata", None, "metadata: is missing"),
        (
            "metadata",
            {"annotations": {"a/b": 1}},
            'metadata.annotations["a/b"]: must be text, not 1 (put it in quotes)',
        ),
        ("metadata", {"labels": "x"}, "metadata.labels: must be an object of texts, not 'x'"),
    ],
)
def test_what_is_no_pod_is_denied_with_the_field(field: str, value: object, message: str) -> None:
    outcome = send(review_of({**REVIEWS, field: value}))
    assert outcome.result is Result.DENIED
    assert message in response(outcome)["status"]["message"]


@pytest.mark.parametrize("pod", [None, 1, "pod", []])
def test_no_object_at_all_is_denied(pod: object) -> None:
    assert response(send(review_of(pod)))["allowed"] is False


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "metrics.k8s.io", "version": "v1", "kind": "Pod"}},
        {"resource": {"group": "", "version": "v1", "resource": "podtemplates"}},
        {"subResource": "ephemeralcontainers"},
        {"kind": None, "object": 7},
    ],
)
def test_what_is_not_the_creation_of_a_pod_is_let_through(request_: dict[str, Any]) -> None:
    outcome = send(review_of(REVIEWS, **request_))
    assert outcome.result is Result.SKIPPED
    assert response(outcome) == {"uid": review_of(None)["request"]["uid"], "allowed": True}


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_another_media_type(content_type: str) -> None:
    with pytest.raises(Unsupported, match="content type"):
        send(review_of(REVIEWS), content_type)


def test_too_large() -> None:
    with pytest.raises(TooLarge):
        review(b" " * (MAX_OBJECT + 1), JSON, enabled, CONFIG)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"nope", b"[" * 5000, b'{"a":1}x', b'{"kind": NaN}'])
def test_not_json(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        review(body, JSON, enabled, CONFIG)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({**review_of(REVIEWS), "apiVersion": "admission.k8s.io/v1beta1"}, "apiVersion"),
        ({**review_of(REVIEWS), "kind": "ConversionReview"}, "kind"),
        ({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}, "request"),
        (review_of(REVIEWS, uid=""), "request.uid"),
        (review_of(REVIEWS, uid=7), "request.uid"),
        (review_of(REVIEWS, namespace=["x"]), "request.namespace"),
        (review_of(REVIEWS, kind="Pod"), "request.kind"),
    ],
)
def test_no_review_that_is_spoken_here(value: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        send(value)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [[], 1, None, "x"])
def test_json_that_is_no_object(value: object) -> None:
    with pytest.raises(InvalidInput):
        send(value)
