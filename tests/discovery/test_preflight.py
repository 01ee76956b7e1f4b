"""Preflight between the two processes' parts: the webhook's client asks a real discovery, which asks a real Envoy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from discovery.preflight.desk import PreflightDesk
from mesh.errors import InvalidInput, Unavailable
from mesh.identity import Identity
from mesh.manifest import documents
from mesh.snapshot import Snapshot
from tests.discovery.harness import HOME, DiscoveryProcess, virtual_service
from webhook.preflight import ANYWAY, Came, Preflight, Refused
from webhook.validate import Verdict, validate

Raw = dict[str, Any]
JSON = "application/json"
DISCOVERY = Identity("cluster.local", HOME, "heddle-discovery")


def with_header(value: str, **annotations: str) -> Raw:
    raw = virtual_service("a", "a", "/x", headers={"request": {"set": {"x-from": value}}})
    raw["metadata"] = {"name": "a", "namespace": "default", "uid": "u-1", "annotations": annotations}
    return raw


GOOD, BAD = with_header("%DOWNSTREAM_REMOTE_ADDRESS%"), with_header("%NO_SUCH_COMMAND%")


def asking(discovery: DiscoveryProcess, came: list[Came], account: str = "heddle-webhook") -> Preflight:
    context = discovery.context(HOME, account)
    return Preflight("127.0.0.1", discovery.port, lambda: context, DISCOVERY, came.append, seconds=30)


def review(raw: Raw, **request: Any) -> bytes:
    kind = {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"}
    asked = {"uid": "u", "kind": kind, "namespace": "default", "name": "a", "operation": "CREATE", "object": raw}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**asked, **request}}
    return json.dumps(body).encode()


def test_what_an_envoy_takes_is_admitted_and_what_it_refuses_is_not(discovery: DiscoveryProcess) -> None:
    came: list[Came] = []
    ask = asking(discovery, came)
    assert ask(GOOD) == []
    (refused,) = ask(BAD)
    assert came == [Came.TAKEN, Came.REFUSED]
    assert refused.field == "spec.http[0]"
    assert refused.message == "Not supported field in StreamInfo: NO_SUCH_COMMAND"
    outcome = validate(review(BAD), JSON, preflight=ask)
    status = json.loads(outcome.body)["response"]["status"]
    assert (outcome.verdict, status["reason"], status["code"]) == (Verdict.REFUSED, "Invalid", 422)
    (cause,) = status["details"]["causes"]
    assert cause["field"] == "spec.http[0]"
    assert "NO_SUCH_COMMAND" in cause["message"]
    assert f"admit it all the same by the annotation {ANYWAY}" in cause["message"]


def test_the_annotation_admits_it_all_the_same_and_that_is_told(discovery: DiscoveryProcess) -> None:
    raw = with_header("%NO_SUCH_COMMAND%", **{ANYWAY: "a newer Envoy knows it"})
    outcome = validate(review(raw), JSON, preflight=asking(discovery, []))
    answer = json.loads(outcome.body)["response"]
    assert answer["allowed"] is True
    assert outcome.overridden is not None
    assert (outcome.overridden.namespace, outcome.overridden.name, outcome.overridden.uid) == ("default", "a", "u-1")
    assert outcome.overridden.why == "a newer Envoy knows it"
    assert "NO_SUCH_COMMAND" in outcome.overridden.refusals[0]
    dry = validate(review(raw, dryRun=True), JSON, preflight=asking(discovery, []))
    assert (dry.verdict, dry.overridden) == (Verdict.PASSED, None), "nothing is recorded of a dry run"
    assert outcome.reason == f"{ANYWAY}: a newer Envoy knows it"
    assert "NO_SUCH_COMMAND" in answer["warnings"][0]
    assert validate(review(with_header("%X_Y%", **{ANYWAY: " "})), JSON, preflight=asking(discovery, [])).verdict is (
        Verdict.REFUSED
    ), "without a reason it is no annotation"


def test_nobody_else_may_ask(discovery: DiscoveryProcess) -> None:
    for who in ((HOME, "heddle-operator"), ("default", "heddle-webhook"), (HOME, "heddle-webhooks")):
        code, body = discovery.call("POST", "/v1/preflight", {"object": GOOD}, who=who)
        assert code == 403, body
    code, body = discovery.call("POST", "/v1/preflight", {"object": GOOD}, who=(HOME, "heddle-webhook-canary"))
    assert (code, body["refusals"]) == (200, [])


@pytest.mark.parametrize("body", [{}, [], {"object": 1}, {"object": GOOD, "seconds": 99}, {"object": {"kind": "x"}}])
def test_what_is_asked_wrongly_is_said(discovery: DiscoveryProcess, body: Any) -> None:
    code, answer = discovery.call("POST", "/v1/preflight", body, who=(HOME, "heddle-webhook"))
    assert (code, answer["error"]["code"]) == (400, "invalid")


def test_a_discovery_that_is_away_or_somebody_else_refuses_nothing(discovery: DiscoveryProcess) -> None:
    came: list[Came] = []
    context = discovery.context(HOME, "heddle-webhook")
    away = Preflight("127.0.0.1", 1, lambda: context, DISCOVERY, came.append)
    other = Preflight("127.0.0.1", discovery.port, lambda: context, Identity("x", HOME, "y"), came.append)
    not_us = asking(discovery, came, "heddle-operator")
    assert away(BAD) == other(BAD) == not_us(BAD) == []
    assert came == [Came.AWAY] * 3


def test_only_what_is_acted_upon_and_changed_is_tried() -> None:
    asked: list[Any] = []

    def ask(raw: Any) -> list[Refused]:
        asked.append(raw)
        return [Refused("spec", "no", "default/a-0", 1)]

    labelled = {**GOOD, "metadata": {**GOOD["metadata"], "labels": {"a": "b"}}}
    assert validate(review(labelled, operation="UPDATE", oldObject=GOOD), JSON, preflight=ask).verdict is Verdict.PASSED
    text = "{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: a}, spec: {template: {}}}"
    (planned,) = documents(text, "text")
    validate(review(planned.raw), JSON, preflight=ask)
    validate(review(GOOD, operation="DELETE"), JSON, preflight=ask)
    assert asked == []
    assert validate(review(GOOD, operation="UPDATE", oldObject=BAD), JSON, preflight=ask).verdict is Verdict.REFUSED


def test_without_an_envoy_nothing_is_tried_and_that_is_said() -> None:
    desk = PreflightDesk(lambda: Snapshot(), "/nowhere/envoy")
    assert desk.answer({"object": BAD}) == {"envoy": False, "shapes": 0, "proxies": 0, "refusals": [], "seconds": 0.0}
    with pytest.raises(InvalidInput):
        desk.answer({"object": None})
    with pytest.raises(Unavailable, match="nothing is read yet"):
        PreflightDesk(lambda: None).answer({"object": BAD})
