"""Kubernetes objects reduced to what is used: what is absent, what counts as ready, what is never shown."""

from __future__ import annotations

import pytest

from mesh.objects import (
    SIDECAR_STATUS_ANNOTATION,
    Key,
    parse_config_map,
    parse_endpoint_slice,
    parse_meta,
    parse_namespace,
    parse_pod,
    parse_secret,
    parse_service,
)
from mesh.snapshot import Snapshot

META = {"namespace": "n", "name": "a", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"}


def test_keys_are_written_as_people_do() -> None:
    assert str(Key("n", "a")) == "n/a"
    assert str(Key("", "a")) == "a"


@pytest.mark.parametrize("raw", [{}, {"metadata": None}, {"metadata": {"labels": None, "annotations": None}}])
def test_what_has_no_metadata_has_empty_ones(raw: dict[str, object]) -> None:
    meta = parse_meta(raw)
    assert (meta.namespace, meta.name, meta.labels, meta.annotations, meta.created) == ("", "", {}, {}, "")


def test_a_pod() -> None:
    pod = parse_pod(
        {
            "metadata": {**META, "annotations": {SIDECAR_STATUS_ANNOTATION: "{}"}, "labels": {"app": "a"}},
            "spec": {
                "serviceAccountName": "sa",
                "nodeName": "node",
                "containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}, {"name": "d"}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    assert (pod.meta.key, pod.service_account, pod.ip, pod.phase) == (Key("n", "a"), "sa", "10.0.0.1", "Running")
    assert (pod.ready, pod.has_sidecar, pod.host_network, pod.deleting, pod.finished) == (
        True, True, False, False, False,
    )  # fmt: skip
    assert [(p.container, p.name, p.port, p.protocol) for p in pod.ports] == [("c", "http", 80, "TCP")]


def test_a_pods_proxy_and_who_runs_as_its_user() -> None:
    by_container = {"securityContext": {"runAsUser": 1337}}
    proxy = {"name": "istio-proxy", "image": "heddle:1", **by_container}
    own = {"name": "own", "securityContext": {"runAsUser": 1000}}
    pod = parse_pod({"metadata": META, "spec": {"containers": [{"name": "app", **by_container}, own, proxy]}})
    assert (pod.proxy_image, pod.beside_the_rules) == ("heddle:1", ("app",))
    spec = {"containers": [{"name": "app"}, own], "initContainers": [proxy], **by_container}
    pod = parse_pod({"metadata": META, "spec": spec})
    assert (pod.proxy_image, pod.beside_the_rules) == ("heddle:1", ("app",))
    assert (parse_pod({"metadata": META}).proxy_image, parse_pod({"metadata": META}).beside_the_rules) == ("", ())


def test_a_pod_that_was_just_made_leaves_or_has_ended() -> None:
    pod = parse_pod({"metadata": META, "spec": None, "status": None})
    assert (pod.service_account, pod.phase, pod.ready, pod.ports, pod.ip) == ("default", "Pending", False, (), "")
    assert parse_pod({"metadata": {**META, "deletionTimestamp": "x"}}).deleting
    for phase in ("Succeeded", "Failed"):
        assert parse_pod({"metadata": META, "status": {"phase": phase}}).finished


def test_a_service() -> None:
    ports = [{"port": 80}, {"name": "g", "port": 81, "targetPort": "grpc", "appProtocol": "grpc", "protocol": "UDP"}]
    service = parse_service({"metadata": META, "spec": {"clusterIP": "10.96.0.1", "ports": ports}})
    assert service.hostname() == "a.n.svc.cluster.local"
    assert (service.type, service.cluster_ip, service.headless) == ("ClusterIP", "10.96.0.1", False)
    assert [(p.name, p.port, p.target, p.protocol, p.app_protocol) for p in service.ports] == [
        ("", 80, 80, "TCP", ""),
        ("g", 81, "grpc", "UDP", "grpc"),
    ]
    headless = parse_service({"metadata": META, "spec": {"clusterIP": "None", "ports": None, "selector": None}})
    assert (headless.cluster_ip, headless.headless, headless.ports, headless.selector) == ("", True, (), {})


def test_a_slice() -> None:
    target = {"kind": "Pod", "name": "p"}
    found = parse_endpoint_slice(
        {
            "metadata": {**META, "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080}, {"name": "all"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": target},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "terminating": True}},
                {"addresses": None, "conditions": None},
            ],
        }
    )
    assert (found.service, found.ports) == (Key("n", "web"), {"http": 8080})
    assert [(e.address, e.ready, e.terminating, e.pod) for e in found.endpoints] == [
        ("10.0.0.1", True, False, Key("n", "p")),
        ("10.0.0.2", False, True, None),
    ]


def test_a_secret_shows_its_keys_and_never_their_values() -> None:
    secret = parse_secret({"metadata": META, "type": "kubernetes.io/tls", "data": {"tls.key": "c2VjcmV0"}})
    assert repr(secret) == "Secret(n/a, keys=['tls.key'])"
    assert secret.data["tls.key"] == "c2VjcmV0"
    assert parse_secret({"metadata": META, "data": None}).type == "Opaque"


def test_equal_content_is_not_the_same_object() -> None:
    assert parse_config_map({"metadata": META}) != parse_config_map({"metadata": META})
    assert parse_namespace({"metadata": META}).meta.labels == {}


def test_a_snapshot_is_replaced_and_not_changed() -> None:
    empty = Snapshot()
    namespace = parse_namespace({"metadata": META})
    newer = empty.replacing(namespaces={"a": namespace}, resource_version=5)
    assert (dict(empty.namespaces), newer.resource_version) == ({}, 5)
    assert newer.settings is empty.settings
    assert newer.pods is empty.pods
    assert newer.of("VirtualService") is empty.of("Gateway")
    with pytest.raises(TypeError):
        empty.pods["x"] = 1  # type: ignore[index]
    istio = {"Gateway": {Key("n", "g"): object()}}
    assert empty.replacing(istio=istio).of("Gateway") is istio["Gateway"]
