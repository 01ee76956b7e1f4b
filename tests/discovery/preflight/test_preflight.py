"""What a real Envoy refuses, told by the field of the object that leads to it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery.plan.memo import Scopes
from discovery.preflight.bootstrap import bootstrap
from discovery.preflight.envoy import loads, until
from discovery.preflight.trials import Element, Trial, trials, with_object
from discovery.preflight.verdict import Refusal, judge, judge_all
from mesh.errors import Unavailable
from mesh.snapshot import Snapshot
from mesh.wire import ResourceType
from tests.support.envoy import binary
from tests.support.snapshots import snapshot, snapshot_of

Raw = dict[str, Any]
ENVOY = str(binary())
CASES = sorted((Path(__file__).parents[1] / "plan" / "cases").glob("*.in.yaml"))

MESH = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {selector: {app: ratings}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec: {replicas: 3, selector: {matchLabels: {app: reviews}},
  template: {metadata: {labels: {app: reviews}}, spec: {containers: [{name: a}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ratings}
spec: {replicas: 2, selector: {matchLabels: {app: ratings}},
  template: {metadata: {labels: {app: ratings}}, spec: {containers: [{name: a}]}}}
"""


@pytest.fixture(scope="module")
def mesh() -> Snapshot:
    return snapshot(MESH)


def route(header: str = "%DOWNSTREAM_REMOTE_ADDRESS%") -> Raw:
    text = f"""
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {{name: reviews, namespace: default}}
    spec:
      hosts: [reviews]
      http:
      - match: [{{uri: {{prefix: /a}}}}]
        route: [{{destination: {{host: reviews}}}}]
      - match: [{{uri: {{prefix: /b}}}}]
        route: [{{destination: {{host: reviews}}}}]
        headers: {{request: {{set: {{x-from: "{header}"}}}}}}
      - route: [{{destination: {{host: ratings}}}}]
    """
    found: Raw = yaml.safe_load(text)
    return found


def tried(mesh: Snapshot, raw: Raw) -> tuple[Trial, ...]:
    return trials(mesh, with_object(mesh, raw), Scopes())


def judged(mesh: Snapshot, raw: Raw) -> list[Refusal]:
    return judge_all(tried(mesh, raw), raw, until(ENVOY, time.monotonic() + 60))


def test_proxies_that_are_alike_are_one_trial(mesh: Snapshot) -> None:
    (trial,) = tried(mesh, route())
    assert trial.proxies == 5
    assert {element.kind for element in trial.elements} == {ResourceType.VIRTUAL_HOSTS}
    assert len(trial.elements) == 3, "a route each"


def test_a_change_that_no_proxy_sees_is_no_trial(mesh: Snapshot) -> None:
    hidden = route("%NO_SUCH_COMMAND%")
    hidden["spec"]["exportTo"] = ["elsewhere"]
    assert tried(mesh, hidden) == ()
    assert tried(mesh, {**route(), "kind": "Sidecar", "spec": {"egress": [{"hosts": ["./*"]}]}}) == ()


def test_what_envoy_takes_is_taken(mesh: Snapshot) -> None:
    assert judged(mesh, route()) == []


def test_a_refusal_names_the_field_of_the_object(mesh: Snapshot) -> None:
    (refusal,) = judged(mesh, route("%NO_SUCH_COMMAND%"))
    assert refusal.field == "spec.http[1]"
    assert "NO_SUCH_COMMAND" in refusal.message
    assert "preflight.json" not in refusal.message
    assert refusal.proxies == 5
    assert refusal.example.startswith("default/")


def test_what_is_refused_because_of_another_object_is_not_this_ones_fault(mesh: Snapshot) -> None:
    def refused(_: object) -> str:
        return "no"

    element = Element(ResourceType.CLUSTERS, "c", {}, ())
    assert judge(Trial((element,), min(mesh.pods), 1), route(), refused) is None


def test_what_is_refused_only_together_is_blamed_on_the_first_of_the_object(mesh: Snapshot) -> None:
    (trial,) = tried(mesh, route())

    def refused(elements: Any) -> str:
        return "together" if len(elements) == len(trial.elements) else ""

    found = judge(trial, route(), refused)
    assert found is not None
    assert (found.field, found.message) == ("spec.http[0]", "together")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.partition(".")[0])
def test_every_case_of_the_plan_would_be_tried_and_taken(case: Path) -> None:
    """Everything that the cases hold, as if it were new: no false refusal, TLS by files and by secrets among it."""
    _, *documents = [document for document in yaml.safe_load_all(case.read_text()) if document]
    whole = snapshot_of(documents)
    empty = whole.replacing(istio={})
    elements = [element for trial in trials(empty, whole, Scopes()) for element in trial.elements]
    assert loads(ENVOY, bootstrap(elements), 60) == ""


def test_an_envoy_that_is_not_there_or_too_slow_is_said(tmp_path: Path) -> None:
    slow = tmp_path / "envoy"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(Unavailable, match="cannot be started"):
        loads("/nowhere/envoy", {}, 5)
    with pytest.raises(Unavailable, match="no time left"):
        until(ENVOY, time.monotonic() - 1)(())
    with pytest.raises(Unavailable, match="did not load it within"):
        loads(str(slow), {}, 0.2)
