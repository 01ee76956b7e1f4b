"""webhook/advice.py: what warnings look at follows the watch, and the object that is admitted is among it."""

from __future__ import annotations

from typing import Any

import pytest

from kube.source import Changed, Listed
from mesh.kinds import parse_istio
from mesh.objects import parse_service
from mesh.settings import MeshSettings
from webhook import advice
from webhook.advice import Advice

Raw = dict[str, Any]
SETTINGS = MeshSettings()


def meta(name: str, namespace: str = "default", **more: Any) -> Raw:
    return {"name": name, "namespace": namespace, **more}


def service(name: str, port: str = "http") -> Raw:
    """As an item of a list: without kind and apiVersion."""
    return {"metadata": meta(name), "spec": {"ports": [{"name": port, "port": 80}]}}


def route(name: str, host: str, to: str, **more: Any) -> Raw:
    spec = {"hosts": [host], "http": [{"route": [{"destination": {"host": to}}]}]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": meta(name, **more),
        "spec": spec,
    }


def adviser(synced: bool = True) -> Advice:
    made = Advice(lambda: SETTINGS, lambda: synced)
    made.on_event(Listed("Service", (service("reviews"), service("ratings")), 1))
    return made


def codes(made: Advice, raw: Raw) -> list[str]:
    return [found.code.number for found in made.advise(raw["kind"], parse_istio(raw))]


def test_findings_follow_the_watch() -> None:
    made = adviser()
    assert codes(made, route("a", "reviews", "ratings")) == []
    made.on_event(Changed("Service", service("ratings"), deleted=True, resource_version=2))
    assert codes(made, route("a", "reviews", "ratings")) == ["HDL0101"]
    made.on_event(Changed("Service", service("ratings"), deleted=False, resource_version=3))
    assert codes(made, route("a", "reviews", "ratings")) == []
    made.on_event(Listed("Service", (service("reviews"),), 4))
    assert codes(made, route("a", "reviews", "ratings")) == ["HDL0101"]


def test_what_is_admitted_is_newer_than_what_is_there_and_is_not_compared_with_itself() -> None:
    made = adviser()
    there = route("older", "reviews", "reviews", creationTimestamp="2026-01-01T00:00:00Z")
    made.on_event(Listed("VirtualService", (there,), 5))
    (found,) = made.advise("VirtualService", parse_istio(route("new", "reviews", "ratings")))
    assert found.code.number == "HDL0201"
    assert "VirtualService default/older routes" in found.problem.message
    assert "is older" in found.problem.message
    assert codes(made, route("older", "reviews", "ratings")) == []


def test_pods_come_as_metadata() -> None:
    made = adviser()
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": meta("strict"),
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "STRICT"}},
    }
    assert codes(made, policy) == ["HDL0401"]
    status = {"sidecar.istio.io/status": "{}"}
    made.on_event(Listed("Pod", ({"metadata": meta("web-1", labels={"app": "web"}, annotations=status)},), 6))
    assert codes(made, policy) == []
    made.on_event(Changed("Pod", {"metadata": meta("old-1", labels={"app": "old"})}, deleted=False, resource_version=7))
    assert codes(made, policy) == ["HDL0403"]


def test_services_are_looked_at_where_somebody_has_sidecars() -> None:
    made = adviser()
    new = parse_service({"metadata": meta("new"), "spec": {"ports": [{"name": "web", "port": 80}]}})
    assert list(made.advise("Service", new)) == []
    made.on_event(
        Listed("Namespace", ({"metadata": {"name": "default", "labels": {"istio-injection": "enabled"}}},), 2)
    )
    assert [found.code.number for found in made.advise("Service", new)] == ["HDL0303"]


def test_nothing_is_said_before_everything_is_read() -> None:
    assert codes(adviser(synced=False), route("a", "reviews", "nowhere")) == []


def test_what_cannot_be_read_is_left_out_and_the_rest_goes_on() -> None:
    made = adviser()
    broken = route("broken", "reviews", "reviews")
    broken["spec"] = {"http": "x"}
    made.on_event(Listed("VirtualService", (broken, route("good", "ratings", "ratings")), 3))
    made.on_event(
        Changed("Service", {"metadata": meta("odd"), "spec": {"ports": "x"}}, deleted=False, resource_version=4)
    )
    assert set(made.view().snapshot.of("VirtualService")) == {("default", "good")}
    assert codes(made, route("a", "reviews", "ratings")) == []


def test_suppressed_by_the_annotation() -> None:
    raw = route("a", "reviews", "nowhere", annotations={"galley.istio.io/analyze-suppress": "IST0109, HDL0101"})
    assert codes(adviser(), raw) == []


def test_a_check_that_breaks_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(advice, "examine", broken)
    assert codes(adviser(), route("a", "reviews", "nowhere")) == []


def test_indexes_serve_again_where_nothing_changed() -> None:
    made = adviser()
    codes(made, route("a", "reviews", "ratings"))
    before = made.view()
    assert before.service_hosts
    made.on_event(Listed("VirtualService", (route("b", "ratings", "ratings"),), 3))
    after = made.view()
    assert after is not before
    assert after.service_hosts is before.service_hosts
    made.on_event(Changed("Service", service("third"), deleted=False, resource_version=4))
    assert made.view().service_hosts is not before.service_hosts


def test_the_watches_are_those_of_the_table() -> None:
    assert {each.kind for each in advice.watched()} >= {"VirtualService", "Service", "Pod"}
    assert {each.kind for each in advice.watched() if each.metadata_only} == {"Pod"}
