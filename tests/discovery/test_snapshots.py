"""From events to snapshots: identity kept, bad objects contained."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.snapshots import SnapshotBuilder, same_content, settings_of, watches
from kube.source import Changed, Event, Listed, Progress
from mesh.objects import Key
from mesh.settings import MeshSettings
from tests.discovery.harness import endpoints, pod, service, virtual_service

DEFAULT = "default"


def changed(raw: dict[str, Any], version: int = 1, *, deleted: bool = False) -> Event:
    versioned = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(version)}}
    return Changed(raw["kind"], versioned, deleted, version)


def settings(text: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"namespace": "istio-system", "name": "istio"}, "data": {"mesh": text}}


@pytest.fixture
def builder() -> SnapshotBuilder:
    return SnapshotBuilder(settings_of())


def test_watches_cover_the_table_and_the_settings() -> None:
    paths = {watched.kind: watched for watched in watches(settings_of())}
    assert {"Pod", "Service", "EndpointSlice", "Namespace", "VirtualService", "Gateway"} <= paths.keys()
    assert "Secret" not in paths
    assert paths["ConfigMap"].path == "/api/v1/namespaces/istio-system/configmaps"
    assert paths["VirtualService"].definition == "virtualservices.networking.istio.io"


def test_only_the_changed_map_is_new(builder: SnapshotBuilder) -> None:
    builder.apply(changed(service("a", "10.96.0.1")))
    builder.apply(changed(pod("p", "10.0.0.1"), 2))
    first = builder.build()
    builder.apply(changed(service("b", "10.96.0.2"), 3))
    second = builder.build()
    assert set(second.services) == {Key(DEFAULT, "a"), Key(DEFAULT, "b")}
    assert second.pods is first.pods
    assert second.services[Key(DEFAULT, "a")] is first.services[Key(DEFAULT, "a")]
    assert (first.resource_version, second.resource_version) == (2, 3)
    assert len(first.services) == 1, "a snapshot never changes"


@pytest.mark.parametrize(
    "raw",
    [
        pod("p", "10.0.0.1"),
        service("a", "10.96.0.1"),
        endpoints("a", 8080, {"10.0.0.1": "p"}),
        virtual_service("v", "a", "/"),
    ],
    ids=lambda raw: str(raw["kind"]),
)
def test_a_heartbeat_changes_nothing_but_the_version(builder: SnapshotBuilder, raw: dict[str, Any]) -> None:
    builder.apply(changed(raw, 1))
    first = builder.build()
    builder.apply(changed({**raw, "metadata": {**raw["metadata"], "managedFields": [{"time": "now"}]}}, 2))
    second = builder.build()
    assert same_content(first, second)
    assert second.resource_version == 2


def test_nothing_new_is_the_same_snapshot(builder: SnapshotBuilder) -> None:
    builder.apply(changed(service("a", "10.96.0.1")))
    assert builder.build() is builder.build()


def test_a_list_replaces_what_was_known(builder: SnapshotBuilder) -> None:
    builder.apply(changed(service("old", "10.96.0.1")))
    builder.apply(changed(service("kept", "10.96.0.2")))
    first = builder.build()
    builder.apply(Listed("Service", (service("kept", "10.96.0.2"), service("new", "10.96.0.3")), 9))
    second = builder.build()
    assert {key.name for key in second.services} == {"kept", "new"}
    assert second.services[Key(DEFAULT, "kept")] is first.services[Key(DEFAULT, "kept")]


def test_items_of_a_list_need_no_kind(builder: SnapshotBuilder) -> None:
    raw = virtual_service("v", "a", "/")
    builder.apply(Listed("VirtualService", ({"metadata": raw["metadata"], "spec": raw["spec"]},), 1))
    assert Key(DEFAULT, "v") in builder.build().of("VirtualService")


def test_a_bad_change_leaves_the_last_good_version_in_force(builder: SnapshotBuilder) -> None:
    good = virtual_service("v", "a", "/good")
    builder.apply(changed(good))
    builder.apply(changed(virtual_service("other", "a", "/other")))
    before = builder.build()
    bad = {**good, "spec": {"hosts": ["a"], "htpp": []}}
    builder.apply(changed(bad, 2))
    after = builder.build()
    assert same_content(before, after)
    (finding,) = builder.findings
    assert (finding.kind, finding.namespace, finding.name, finding.field) == (
        "VirtualService",
        DEFAULT,
        "v",
        "spec.htpp",
    )
    assert "http" in finding.hint
    assert finding.effect == "its last good version stays in force"
    builder.apply(changed(virtual_service("v", "a", "/better"), 3))
    assert builder.findings == ()
    assert not same_content(before, builder.build())


@pytest.mark.parametrize(
    "raw",
    [
        {**service("bad", "10.96.0.9"), "spec": {"ports": [{"port": "http"}]}},
        {**service("bad", "10.96.0.9"), "spec": {"ports": 7}},
        {**service("bad", "10.96.0.9"), "spec": "text"},
    ],
)
def test_a_core_object_that_cannot_be_read_has_no_effect(builder: SnapshotBuilder, raw: dict[str, Any]) -> None:
    builder.apply(changed(raw))
    builder.apply(changed(service("good", "10.96.0.1")))
    assert {key.name for key in builder.build().services} == {"good"}
    (finding,) = builder.findings
    assert finding.name == "bad"
    assert finding.effect == "it has no effect"


def test_a_deleted_bad_object_is_no_longer_a_problem(builder: SnapshotBuilder) -> None:
    bad = {**virtual_service("v", "a", "/"), "spec": {"wrong": 1}}
    for remove in (changed(bad, 2, deleted=True), Listed("VirtualService", (), 2)):
        builder.apply(changed(bad))
        assert builder.findings
        builder.apply(remove)
        assert builder.findings == ()


def test_fields_that_are_not_acted_upon_are_warnings(builder: SnapshotBuilder) -> None:
    raw = virtual_service("v", "a", "/", mirror={"host": "a"})
    builder.apply(changed(raw))
    assert Key(DEFAULT, "v") in builder.build().of("VirtualService")
    assert [(each.severity, each.field) for each in builder.findings] == [("warning", "spec.http[0].mirror")]


def test_settings(builder: SnapshotBuilder) -> None:
    builder.apply(changed(settings("trustDomain: example.org\nrootNamespace: istio-system\nfancy: 1\n")))
    first = builder.build()
    assert first.settings.trust_domain == "example.org"
    assert "fancy" in builder.findings[0].field
    builder.apply(changed(settings("outboundTrafficPolicy: {mode: MAYBE}"), 2))
    assert same_content(first, builder.build())
    (finding,) = builder.findings
    assert "MAYBE" in finding.message
    assert finding.effect == "the settings before it stay in force"
    builder.apply(Listed("ConfigMap", (), 3))
    assert builder.build().settings == MeshSettings()
    assert builder.findings == ()


def test_a_revision_follows_its_own_settings() -> None:
    key = settings_of("canary")
    assert {watched.kind: watched for watched in watches(key)}["ConfigMap"].query == {
        "fieldSelector": "metadata.name=istio-canary"
    }
    builder = SnapshotBuilder(key)
    raw = settings("accessLogFile: /dev/stdout")
    builder.apply(changed(raw))
    assert builder.build().settings.access_log_file == ""
    builder.apply(changed({**raw, "metadata": {**raw["metadata"], "name": "istio-canary"}}, 2))
    assert builder.build().settings.access_log_file == "/dev/stdout"


def test_the_root_namespace_is_the_control_planes() -> None:
    key = settings_of(control_namespace="mesh")
    builder = SnapshotBuilder(key)
    assert builder.build().settings.root_namespace == "mesh"
    raw = settings("accessLogFile: /dev/stdout")
    builder.apply(changed(raw))
    assert builder.build().settings.access_log_file == "", "of another control plane"
    builder.apply(changed({**raw, "metadata": {**raw["metadata"], "namespace": "mesh"}}, 2))
    assert (builder.build().settings.access_log_file, builder.build().settings.root_namespace) == (
        "/dev/stdout",
        "mesh",
    )


def test_other_config_maps_are_not_the_settings(builder: SnapshotBuilder) -> None:
    other = settings("trustDomain: example.org")
    other["metadata"]["name"] = "else"
    builder.apply(changed(other))
    assert builder.build().settings == MeshSettings()


def test_only_secrets_with_certificates_are_kept(builder: SnapshotBuilder) -> None:
    def secret(name: str, **data: str) -> dict[str, Any]:
        return {"kind": "Secret", "metadata": {"namespace": DEFAULT, "name": name}, "data": data}

    tls = secret("tls", **{"tls.crt": "", "tls.key": ""})
    builder.apply(Listed("Secret", (secret("password", password="cGFzcw=="), tls), 1))
    assert {key.name for key in builder.build().secrets} == {"tls"}
    builder.apply(changed(secret("tls", other=""), 2))
    assert not builder.build().secrets


def test_bookmarks_move_the_version(builder: SnapshotBuilder) -> None:
    builder.apply(Progress("Pod", 40))
    assert builder.build().resource_version == 40
    assert builder.versions == {"Pod": 40}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["Pod", "Service", "EndpointSlice", "Secret", "VirtualService", "Gateway"]), JUNK, JUNK)
def test_no_object_can_stop_the_others(kind: str, spec: Any, status: Any) -> None:
    builder = SnapshotBuilder(settings_of())
    raw = {"kind": kind, "metadata": {"namespace": DEFAULT, "name": "junk"}, "spec": spec, "status": status}
    builder.apply(Changed(kind, {**raw, "endpoints": spec, "ports": status, "data": spec}, False, 1))
    builder.apply(changed(service("good", "10.96.0.1"), 2))
    assert Key(DEFAULT, "good") in builder.build().services
