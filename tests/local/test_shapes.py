"""Shapes of Kubernetes core objects: one wrong thing at a time, and anything at all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local import shapes
from local.endpoints import endpoint_slices, with_cluster_ip
from local.unhonoured_kinds import kind_fields, template_warnings
from local.workloads import reconcile
from mesh.errors import HeddleError
from mesh.manifest import read_manifest

Raw = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]

CONTAINER: Raw = {
    "name": "c",
    "image": "i",
    "args": ["x"],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    "ports": [{"name": "http", "containerPort": 8080}],
    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
}
POD: Raw = {"containers": [CONTAINER], "volumes": [{"name": "tmp", "emptyDir": {}}]}
LABELS: Raw = {"app": "web"}
GOOD: dict[str, Raw] = {
    "Pod": {"spec": POD},
    "Deployment": {
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": dict(LABELS)}, "spec": POD},
        }
    },
    "Job": {"spec": {"backoffLimit": 2, "template": {"spec": {**POD, "restartPolicy": "Never"}}}},
    "Service": {"spec": {"selector": LABELS, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}},
    "ConfigMap": {"data": {"k": "v"}, "binaryData": {"b": "AA=="}},
    "Secret": {"data": {"k": "AA=="}, "stringData": {"s": "v"}},
    "ServiceAccount": {},
    "Namespace": {},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]},
}
GOOD["ReplicaSet"] = GOOD["Deployment"]
REMOVED = object()


def good(kind: str) -> Raw:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "web"}, **copy.deepcopy(GOOD[kind])}


def changed(kind: str, path: str, value: object) -> Raw:
    raw = good(kind)
    steps = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = raw
    for step in steps[:-1]:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    if value is REMOVED:
        del place[steps[-1]]
    else:
        place[steps[-1]] = value
    return raw


@pytest.mark.parametrize("kind", sorted(shapes.KINDS))
def test_what_is_right_is_not_complained_of(kind: str) -> None:
    assert shapes.problems(kind, good(kind)) == []


def test_the_samples_are_right() -> None:
    for file in sorted((ROOT / "samples").rglob("manifests/*.yaml")):
        for document in read_manifest(file.read_text(), str(file)).documents:
            if document.kind in shapes.KINDS:
                assert shapes.problems(document.kind, document.raw) == []


TEMPLATE = "spec.template.spec"
FIRST = f"{TEMPLATE}.containers.0"
WRONG = [
    ("Deployment", "spec", REMOVED, "spec: the object has no spec"),
    ("Deployment", "spec", "text", "spec: a mapping is expected, and this is 'text'"),
    ("Deployment", "spec.replicas", "three", "spec.replicas: a whole number is expected, and this is 'three'"),
    ("Deployment", "spec.replicas", True, "a whole number is expected, and this is true"),
    ("Deployment", "spec.replicas", -1, "-1 is not from 0 to"),
    ("Deployment", "spec.template", REMOVED, "spec.template: this field is required (add template)"),
    ("Deployment", "spec.template", None, "spec.template: this field is required"),
    ("Deployment", TEMPLATE, REMOVED, "spec.template.spec: this field is required"),
    ("Deployment", f"{TEMPLATE}.containers", REMOVED, "spec.template.spec.containers: this field is required"),
    ("Deployment", f"{TEMPLATE}.containers", [], "spec.template.spec.containers: the list is empty (add an item)"),
    ("Deployment", f"{TEMPLATE}.containers", {"name": "c"}, "containers: a list is expected, and this is a mapping"),
    ("Deployment", f"{TEMPLATE}.containers", [None], "containers[0]: a mapping is expected, and this is null"),
    ("Deployment", f"{FIRST}.image", REMOVED, "containers[0].image: this field is required"),
    ("Deployment", f"{FIRST}.image", "", "containers[0].image: the image is empty"),
    ("Deployment", f"{FIRST}.name", "A_b", "'A_b' is not the name of a container"),
    ("Deployment", f"{FIRST}.args", [8080], "args[0]: text is expected, and this is 8080 (put it in quotes)"),
    ("Deployment", f"{FIRST}.command", "run", "command: a list is expected, and this is 'run'"),
    ("Deployment", f"{FIRST}.env.0.value", True, "env[0].value: text is expected, and this is true (put it in quotes)"),
    ("Deployment", f"{FIRST}.env", {"A": "1"}, "env: a list is expected"),
    ("Deployment", f"{FIRST}.ports.0.containerPort", 70000, "containerPort: 70000 is not from 1 to 65535"),
    ("Deployment", f"{FIRST}.ports.0.containerPort", REMOVED, "containerPort: this field is required"),
    ("Deployment", f"{FIRST}.volumeMounts.0.name", "none", "volumeMounts[0].name: the pod has no volume 'none'"),
    ("Deployment", f"{FIRST}.readinessProbe", {"periodSeconds": 1}, "a probe does one thing, and this has none"),
    ("Deployment", f"{FIRST}.readinessProbe.httpGet.port", REMOVED, "httpGet.port: this field is required"),
    ("Deployment", f"{FIRST}.restartPolicy", "Always", "only an init container has a restartPolicy"),
    ("Deployment", f"{TEMPLATE}.restartPolicy", "Never", "restart Always, and this says Never"),
    ("Deployment", f"{TEMPLATE}.initContainers", [CONTAINER], "a container 'c' stands twice in one pod"),
    ("Deployment", "spec.selector", REMOVED, "spec.selector: this field is required"),
    ("Deployment", "spec.selector", {}, "an empty selector selects no pods of its own"),
    (
        "Deployment",
        "spec.selector.matchLabels.app",
        "other",
        "spec.selector.matchLabels.app: the selector asks for label app: other, and the template has 'web' "
        "(write app: other under spec.template.metadata.labels, or change the selector)",
    ),
    ("Deployment", "spec.template.metadata", {}, "asks for label app: web, and the template does not have it"),
    ("Deployment", "spec.strategy", {"type": "Blue"}, "spec.strategy.type: 'Blue' is not one of RollingUpdate, Recre"),
    ("Deployment", "metadata.labels", ["a"], "metadata.labels: a mapping is expected, and this is a list"),
    ("Deployment", "metadata.annotations", {"a": 1}, "metadata.annotations.a: text is expected, and this is 1"),
    ("Deployment", "metadata.name", "Web!", "metadata.name: 'Web!' is not a name of a Deployment"),
    ("Deployment", "metadata", {"generateName": "web-"}, "the object has no name, only a generateName"),
    ("Deployment", "metadata.namespace", "A", "metadata.namespace: 'A' is not a namespace"),
    ("Job", f"{TEMPLATE}.restartPolicy", "Always", "restart Never or OnFailure, and this says Always"),
    ("Job", f"{TEMPLATE}.restartPolicy", REMOVED, "restart Never or OnFailure, and this says Always"),
    ("Job", "spec.backoffLimit", "6", "spec.backoffLimit: a whole number is expected"),
    ("Pod", "spec.volumes.0.name", REMOVED, "spec.volumes[0].name: this field is required"),
    ("Pod", "spec.volumes.0", {"name": "tmp", "configMap": {}}, "spec.volumes[0].configMap.name: this field is requi"),
    ("Pod", "spec.restartPolicy", "Sometimes", "'Sometimes' is not one of Always, OnFailure, Never"),
    ("Pod", "spec.terminationGracePeriodSeconds", "5s", "a whole number is expected, and this is '5s'"),
    ("Pod", "spec.securityContext", {"runAsUser": "root"}, "spec.securityContext.runAsUser: a whole number is expect"),
    ("Service", "spec.ports", REMOVED, "spec.ports: the service has no port (add one, or write clusterIP: None)"),
    ("Service", "spec", REMOVED, "spec.ports: the service has no port"),
    ("Service", "spec.ports.0.port", "80", "spec.ports[0].port: a whole number is expected, and this is '80'"),
    ("Service", "spec.ports.0.port", REMOVED, "spec.ports[0].port: this field is required"),
    ("Service", "spec.ports.0.targetPort", [1], "a port number or the name of a port is expected"),
    ("Service", "spec.ports.0.targetPort", "99999", "99999 is not from 1 to 65535"),
    ("Service", "spec.ports.0.protocol", "tcp", "'tcp' is not one of TCP, UDP, SCTP"),
    (
        "Service",
        "spec.ports",
        [{"port": 80}, {"name": "b", "port": 81}],
        "spec.ports[0].name: a service with more than",
    ),
    (
        "Service",
        "spec.ports",
        [{"name": "a", "port": 1}, {"name": "a", "port": 2}],
        "spec.ports[1].name: the port name a stands twice",
    ),
    ("Service", "spec.ports", [{"name": "a", "port": 8}, {"name": "b", "port": 8}], "ports[1].port: the port 8 stands"),
    ("Service", "spec.clusterIP", "fd00::1", "spec.clusterIP: 'fd00::1' is not an IPv4 address"),
    ("Service", "spec.clusterIP", "10.96.0.10", "spec.clusterIP: 10.96.0.10 is the address of the mesh's DNS"),
    ("Service", "spec.clusterIP", "10.244.3.4", "spec.clusterIP: 10.244.3.4 is in the range of the pods"),
    ("Service", "spec.selector", {"app": 5}, "spec.selector.app: text is expected, and this is 5"),
    ("Service", "spec.type", "ExternalName", "an ExternalName service needs a name"),
    ("Service", "metadata.name", "a.b", "metadata.name: 'a.b' is not a name of a Service"),
    ("ConfigMap", "data.k", {"a": 1}, "data.k: text is expected, and this is a mapping (write text)"),
    ("ConfigMap", "data", "text", "data: a mapping is expected, and this is 'text'"),
    ("ConfigMap", "binaryData.k", "AA==", "binaryData.k: the key k stands in data too"),
    ("Secret", "data.k", "no base64!", "data.k: the value is not base64 (use stringData for plain text)"),
    ("Secret", "stringData.s", 5, "stringData.s: text is expected, and this is 5 (put it in quotes)"),
]


@pytest.mark.parametrize(("kind", "path", "value", "words"), WRONG)
def test_one_wrong_thing_is_one_sentence_with_field_and_way_out(
    kind: str, path: str, value: object, words: str
) -> None:
    (problem,) = shapes.problems(kind, changed(kind, path, value))
    assert words in str(problem)
    assert problem.hint


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Service", "spec.clusterIP", "None"),
        ("Service", "spec", {"clusterIP": "None", "selector": LABELS}),
        ("Service", "spec", {"type": "ExternalName", "externalName": "example.org"}),
        ("Service", "spec.ports", [{"name": "a", "port": 53, "protocol": p} for p in ("TCP",)]),
        ("Pod", "spec.initContainers", [{"name": "s", "image": "i", "restartPolicy": "Always"}]),
        ("Deployment", "metadata.name", "a.b-c"),
        ("Deployment", "spec.replicas", 0),
        ("Deployment", f"{TEMPLATE}.anything", {"new": ["in", "Kubernetes"]}),
    ],
)
def test_allowed(kind: str, path: str, value: object) -> None:
    assert shapes.problems(kind, changed(kind, path, value)) == []


def test_null_is_absent() -> None:
    raw = shapes.without_nulls({"a": None, "b": {"c": None}, "d": [None, {"e": None}]})
    assert raw == {"b": {}, "d": [None, {}]}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["Always", "None", "http", 80]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "port", "spec", "containers", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths(value: object, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [above] if above else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in items:
        found += paths(below, (*above, step))
    return found


@settings(max_examples=400)
@given(st.data())
def test_anything_is_either_refused_or_does_no_harm(data: st.DataObject) -> None:
    """What passes can be given to what acts upon it: the controllers, and the words about fields without effect."""
    kind = data.draw(st.sampled_from(sorted(shapes.KINDS)))
    raw = {**good(kind), "metadata": {"name": "web", "labels": {}}}
    for path in data.draw(st.lists(st.sampled_from(paths(raw)), min_size=1, max_size=2)):
        if path[0] in ("spec", "data", "endpoints", "ports"):
            place: Any = raw
            try:
                for step in path[:-1]:
                    place = place[step]
                place[path[-1]] = data.draw(values)
            except (KeyError, IndexError, TypeError):
                continue
    raw = shapes.without_nulls(raw)
    if shapes.problems(kind, raw):
        return
    kind_fields(kind, raw)
    template_warnings(kind, "here", raw)
    raw["metadata"] = {"namespace": "n", "name": "web", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    if kind in ("Deployment", "ReplicaSet", "Job"):
        given: dict[str, list[Raw]] = {
            name: [raw] if name == kind else [] for name in ("Deployment", "ReplicaSet", "Job")
        }
        reconcile(given["Deployment"], given["ReplicaSet"], given["Job"], [], lambda: "abcde")
    if kind == "Service":
        pod = {"metadata": {"namespace": "n", "name": "p", "uid": "p", "labels": LABELS}, "spec": POD}
        running = {**pod, "status": {"phase": "Running", "podIP": "10.244.1.1"}}
        try:
            endpoint_slices([with_cluster_ip(raw, {})], [running])
        except HeddleError:
            return
