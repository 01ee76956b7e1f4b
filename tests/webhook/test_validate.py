"""webhook/validate.py: what is refused, with every error; what is admitted, with warnings; what is not looked at."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from mesh.admission import PROBE
from mesh.analysis.model import Code, Finding, Severity
from mesh.errors import InvalidInput, TooLarge, Unsupported
from mesh.kinds import KINDS, Kind, find_kind
from mesh.manifest import documents
from tests.mesh import refused
from webhook.validate import LONGEST_WARNING, MAX_REVIEW, MOST_WARNINGS, Validated, Verdict, unchecked, validate

JSON = "application/json"
Raw = dict[str, Any]
DOUBT = Code("HDL9999", "doubt", Severity.WARNING, "For this test.", "None.")


def virtual_service(*destinations: Raw, **metadata: Any) -> Raw:
    routes = [{"destination": destination} for destination in destinations] or [{"destination": {"host": "reviews"}}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "default", "uid": "1", "generation": 1, **metadata},
        "spec": {"hosts": ["reviews"], "http": [{"route": routes}]},
    }


def review(raw: Any, operation: str = "CREATE", **request: Any) -> bytes:
    raw_kind = raw if isinstance(raw, dict) else {}
    group, _, version = str(raw_kind.get("apiVersion")).rpartition("/")
    asked = {
        "uid": "u1",
        "kind": {"group": group, "version": version, "kind": raw_kind.get("kind")},
        "resource": {"group": group, "version": version, "resource": f"{str(raw_kind.get('kind')).lower()}s"},
        "namespace": "default",
        "name": "reviews",
        "operation": operation,
        "object": raw,
        "oldObject": None,
        **request,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}).encode()


def response(outcome: Validated) -> Raw:
    found: Raw = json.loads(outcome.body)["response"]
    assert found["uid"] == "u1"
    return found


def doubting(*messages: str) -> Any:
    def advise(kind: str, thing: Any) -> Iterable[Finding]:
        return [DOUBT.on(thing, "spec", "hosts", 0, says=f"{kind}: {message}", hint="do") for message in messages]

    return advise


def test_an_object_that_is_right_is_admitted() -> None:
    outcome = validate(review(virtual_service()), JSON)
    assert response(outcome) == {"uid": "u1", "allowed": True}
    assert outcome.verdict is Verdict.PASSED
    assert (outcome.group, outcome.version, outcome.resource) == ("networking.istio.io", "v1", "virtualservices")


def test_every_error_is_told_at_once_each_with_field_value_reason_and_way_out() -> None:
    raw = virtual_service({"host": "reviews", "subst": "v1"}, {"host": "re*views"})
    raw["spec"]["http"].append({"match": [{"uri": {"regex": "("}}], "route": []})
    raw["spec"]["exportTo"] = ["x", "*"]
    outcome = validate(review(raw), JSON)
    status = response(outcome)["status"]
    assert outcome.verdict is Verdict.REFUSED
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert {key: status["details"][key] for key in ("name", "group", "kind")} == {
        "name": "reviews",
        "group": "networking.istio.io",
        "kind": "VirtualService",
    }
    causes = {cause["field"]: cause["message"] for cause in status["details"]["causes"]}
    assert len(causes) >= 4
    assert "did you mean subset?" in causes["spec.http[0].route[0].destination.subst"]
    assert "re*views" in causes["spec.http[0].route[1].destination.host"]
    assert "RE2" in causes["spec.http[1].match[0].uri.regex"]
    assert "stand alone" in causes["spec.exportTo"]
    for field in causes:
        assert field in status["message"]


@pytest.mark.parametrize("name", refused.KINDS)
def test_every_mistake_that_is_known_is_refused_in_every_version(name: str) -> None:
    for case, raw in refused.objects(name):
        kind = find_kind(raw["apiVersion"], raw["kind"])
        assert kind is not None
        for version in kind.versions:
            outcome = validate(review({**raw, "apiVersion": f"{kind.group}/{version}"}), JSON)
            assert outcome.verdict is Verdict.REFUSED, (case, version)


ISTIO = [kind for kind in KINDS if kind.of_istio]


@pytest.mark.parametrize("kind", ISTIO, ids=lambda kind: kind.kind)
def test_what_is_not_acted_upon_is_a_warning(kind: Kind) -> None:
    if not kind.planned:
        return
    text = f"{{apiVersion: {kind.api_version}, kind: {kind.kind}, metadata: {{name: a}}, spec: {_least(kind.kind)}}}"
    (document,) = documents(text, "text")
    answer = response(validate(review(document.raw), JSON))
    assert answer["allowed"] is True, answer
    assert any("does not act upon it" in warning for warning in answer["warnings"])


def _least(kind: str) -> str:
    return {
        "ServiceEntry": "{hosts: [a.example.com], ports: [{number: 80, name: http}], resolution: DNS}",
        "WorkloadEntry": "{address: 10.0.0.1}",
        "WorkloadGroup": "{template: {serviceAccount: a}}",
        "WasmPlugin": "{url: 'oci://example.com/a:1'}",
    }.get(kind, "{}")


def test_findings_are_warnings_and_never_block() -> None:
    outcome = validate(review(virtual_service()), JSON, doubting("one", "two"))
    answer = response(outcome)
    assert answer["allowed"] is True
    assert answer["warnings"] == [
        f"VirtualService default/reviews: spec.hosts[0]: VirtualService: {word} (do) [HDL9999]"
        for word in ("one", "two")
    ]
    assert outcome.warnings == 2


def test_warnings_are_as_long_and_as_many_as_the_api_server_passes_on() -> None:
    long, many = doubting("x" * 400), doubting(*map(str, range(40)))
    (warning,) = response(validate(review(virtual_service()), JSON, long))["warnings"]
    assert len(warning) <= LONGEST_WARNING
    assert warning.endswith("[HDL9999]")
    warnings = response(validate(review(virtual_service()), JSON, many))["warnings"]
    assert len(warnings) == MOST_WARNINGS + 1
    assert warnings[-1] == "and 28 more: heddle analyze tells all"
    assert sum(map(len, warnings)) <= 4096


def test_services_are_advised_and_nothing_else_of_kubernetes() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {"ports": []},
    }
    answer = response(validate(review(service), JSON, doubting("port")))
    assert answer["warnings"] == ["Service b/a: spec.hosts[0]: Service: port (do) [HDL9999]"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    assert validate(review(pod), JSON, doubting("pod")).verdict is Verdict.NOT_CHECKED


def settings(mesh: Any, name: str = "istio") -> Raw:
    data = {"mesh": mesh, "meshNetworks": "networks: {}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "x"}, "data": data}


def test_the_meshs_settings_are_checked_and_no_other_config_map() -> None:
    wrong = settings("enableAutoMtls: 7\naccessLogFormat: '%RESPONSE_CODES%'")
    status = response(validate(review(wrong), JSON))["status"]
    (cause,) = status["details"]["causes"]
    assert (status["code"], cause["field"]) == (422, "data.mesh")
    assert "enableAutoMtls: " in cause["message"]
    assert "accessLogFormat: there is no command %RESPONSE_CODES%" in cause["message"]
    assert "did you mean %RESPONSE_CODE%?" in cause["message"]
    assert validate(review(settings(5, "istio-canary")), JSON).verdict is Verdict.REFUSED
    assert validate(review(settings("accessLogFormat: '%PROTOCOL%'")), JSON).verdict is Verdict.PASSED
    assert validate(review(wrong, "UPDATE", oldObject=wrong), JSON).verdict is Verdict.PASSED
    assert validate(review(settings("a: [", "other")), JSON).verdict is Verdict.NOT_CHECKED


WRONG = virtual_service({"host": "re*views"})


@pytest.mark.parametrize(
    "body",
    [
        review(WRONG, "DELETE"),
        review(None, "DELETE", oldObject=WRONG),
        review(WRONG, "CONNECT"),
        review(WRONG, "UPDATE", subResource="status"),
        review(virtual_service({"host": "re*views"}, deletionTimestamp="2026-01-01T00:00:00Z"), "UPDATE"),
        review({**WRONG, "apiVersion": "networking.istio.io/v7"}),
        review({**WRONG, "apiVersion": "example.com/v1"}),
        review({**WRONG, "kind": "Unheard"}),
        review([1, 2]),
    ],
    ids=["delete", "delete-old", "connect", "status", "deleting", "version", "group", "kind", "no-object"],
)
def test_what_is_let_through_unread(body: bytes) -> None:
    outcome = validate(body, JSON)
    assert response(outcome)["allowed"] is True
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.reason


def test_what_was_wrong_before_can_be_labelled_and_its_finalizers_removed() -> None:
    old = virtual_service({"host": "re*views"}, finalizers=["example.com/a"])
    new = virtual_service({"host": "re*views"}, finalizers=[])
    outcome = validate(review(new, "UPDATE", oldObject=old), JSON)
    answer = response(outcome)
    assert answer["allowed"] is True
    assert "the spec is as it was" in answer["warnings"][0]
    changed = virtual_service({"host": "re*views"}, {"host": "reviews"})
    assert validate(review(changed, "UPDATE", oldObject=old), JSON).verdict is Verdict.REFUSED


def test_the_webhooks_own_question_is_refused_with_its_value() -> None:
    outcome = validate(review(virtual_service(annotations={PROBE: "n0nce"})), JSON)
    assert response(outcome)["status"]["message"] == "asked and answered: n0nce"


def test_a_bug_of_ours_locks_nobody_out() -> None:
    answer = response(unchecked(review(virtual_service()), "KeyError: x"))
    assert answer["allowed"] is True
    assert answer["warnings"] == ["VirtualService default/reviews was not checked: KeyError: x"]


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        "text",
        7,
        {"http": None},
        {"hosts": {}},
        {"hosts": [[[[]]]]},
        {"http": [{"match": {"a": 1}}]},
        {"": ""},
    ],
)
def test_any_spec_is_answered(spec: Any) -> None:
    raw = virtual_service()
    raw["spec"] = spec
    assert validate(review(raw), JSON).verdict is Verdict.REFUSED


@pytest.mark.parametrize("metadata", [None, [], "x", {"name": 1}, {"name": "a", "annotations": [1], "labels": "x"}])
def test_any_metadata_is_answered(metadata: Any) -> None:
    raw = {**virtual_service(), "metadata": metadata}
    assert validate(review(raw), JSON).verdict is Verdict.REFUSED


def test_what_is_nested_deeply_is_answered() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    raw = virtual_service()
    raw["spec"] = deep
    assert validate(review(raw), JSON).verdict is Verdict.REFUSED
    filter_ = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "a"}}
    patch = {"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": deep}}
    outcome = validate(review({**filter_, "spec": {"configPatches": [patch]}}), JSON)
    assert outcome.verdict in (Verdict.PASSED, Verdict.REFUSED)


def test_what_is_no_review() -> None:
    with pytest.raises(Unsupported):
        validate(review(virtual_service()), "text/plain")
    with pytest.raises(TooLarge):
        validate(b" " * (MAX_REVIEW + 1), JSON)
    for body in (b"", b"[]", b"{}", b"\xff", review(virtual_service()).replace(b"admission.k8s.io/v1", b"x/v1")):
        with pytest.raises(InvalidInput):
            validate(body, JSON)


def test_a_huge_object_is_checked_whole() -> None:
    raw = virtual_service()
    raw["spec"]["http"] = [
        {"match": [{"uri": {"prefix": f"/{number}"}}], "route": [{"destination": {"host": "reviews"}}]}
        for number in range(4097)
    ]
    outcome = validate(review(raw), JSON)
    assert outcome.verdict is Verdict.REFUSED
    assert "4097 entries are more than 4096" in outcome.reason
