"""webhook/overrides.py, and that the app records what is admitted all the same, and no dry run."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import Any

import pytest

from kube.client import Client
from kube.events import LONGEST_NOTE
from mesh.errors import Forbidden
from tests.support.waiting import wait_for
from tests.webhook.test_validate import review, virtual_service
from webhook.app import Deps, create_app
from webhook.config import InjectionConfig
from webhook.metrics import Metrics
from webhook.overrides import Override, Recorder, event
from webhook.preflight import ANYWAY, Refused

OVERRIDE = Override("networking.istio.io/v1", "VirtualService", "shop", "a", "u-1", "known today", ("spec: no",))


class Writes(Client):
    """What is posted; refused while `refuses`."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.asked = threading.Event()
        self._refuses = refuses

    def post(self, path: str, body: Any, **_: Any) -> Any:
        self.asked.set()
        if self._refuses:
            raise Forbidden("events is forbidden")
        self.posted.append((path, body))


def test_an_event_says_why_and_what_an_envoy_has_against_it() -> None:
    made = event(OVERRIDE, "heddle-webhook-0", 0.25)
    assert made["note"] == "it was admitted all the same: known today; spec: no"
    assert made["eventTime"] == "1970-01-01T00:00:00.250000Z"
    assert made["regarding"] == {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "namespace": "shop",
        "name": "a",
        "uid": "u-1",
    }
    assert made["metadata"]["name"].startswith("a.")
    assert made["metadata"]["name"] != event(OVERRIDE, "heddle-webhook-0", 1.0)["metadata"]["name"]


def test_what_the_api_has_no_room_for_is_cut() -> None:
    made = event(dataclasses.replace(OVERRIDE, name="n" * 253, why="ö" * 2000), "r" * 200, 0)
    assert len(made["note"].encode()) <= LONGEST_NOTE
    assert len(made["metadata"]["name"]) <= 253
    assert len(made["reportingInstance"]) <= 128


@pytest.mark.parametrize("refuses", [False, True])
def test_it_is_written_behind_and_a_refusal_is_nobodys_trouble(refuses: bool) -> None:
    client = Writes(refuses=refuses)
    Recorder(client, "replica", lambda: 0.0).record(OVERRIDE)
    assert client.asked.wait(30)
    if not refuses:
        wait_for(lambda: bool(client.posted))
        assert client.posted[0][0] == "/apis/events.k8s.io/v1/namespaces/shop/events"


def test_the_app_records_what_is_admitted_all_the_same_and_no_dry_run() -> None:
    recorded: list[Override] = []
    metrics = Metrics()
    deps = Deps(
        lambda: InjectionConfig(),
        lambda _namespace: {},
        lambda _revision: False,
        lambda: "",
        metrics,
        preflight=lambda _raw: [Refused("spec.http[0]", "no", "shop/a-0", 1)],
        record=recorded.append,
    )
    client = create_app(deps).test_client()
    raw = virtual_service(annotations={ANYWAY: "known today"})

    def allowed(body: bytes) -> bool:
        answer = client.post("/validate", data=body, content_type="application/json")
        return bool(json.loads(answer.data)["response"]["allowed"])

    assert not allowed(review(virtual_service()))
    assert allowed(review(raw, dryRun=True))
    assert recorded == []
    assert b'heddle_preflight_total{result="overridden"}' not in metrics.text()
    assert allowed(review(raw))
    (override,) = recorded
    assert (override.why, override.name, override.uid) == ("known today", "reviews", "1")
    assert b'heddle_preflight_total{result="overridden"} 1.0' in metrics.text()
