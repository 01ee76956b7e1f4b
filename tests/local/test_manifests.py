"""From manifests to objects: what is completed, what is refused with its place and way out, what is only named."""

from __future__ import annotations

import base64

import pytest

from local.manifests import Desired, control_plane_objects, desired
from mesh.manifest import read_manifest
from mesh.objects import Key


def read(text: str, reserved: frozenset[tuple[str, Key]] = frozenset()) -> Desired:
    manifest = read_manifest(text, "f.yaml")
    assert manifest.problems == ()
    return desired(manifest.documents, reserved)


def only(text: str) -> dict[str, object]:
    found = read(text)
    assert found.refused == ()
    (raw,) = (raw for (kind, _), raw in found.objects.items() if kind != "Namespace")
    return raw


def refusal(text: str) -> str:
    found = read(text)
    assert all(kind == "Namespace" for kind, _ in found.objects)
    return "\n".join(map(str, found.refused))


def test_namespaces_are_filled_in_and_made() -> None:
    found = read("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n"
                 "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: other}\n")  # fmt: skip
    assert list(found.objects) == [
        ("Namespace", Key("", "default")),
        ("Namespace", Key("", "other")),
        ("ConfigMap", Key("default", "a")),
        ("ConfigMap", Key("other", "a")),
    ]
    assert found.notices == ("namespace other is made without labels, since no manifest describes it",)


def test_a_cluster_scoped_object_has_no_namespace_whatever_it_says() -> None:
    raw = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b, labels: {x: 'y'}}\n"
    found = read(raw)
    assert found.objects["Namespace", Key("", "a")]["metadata"] == {"name": "a", "labels": {"x": "y"}}


def test_a_wrong_namespace_object_is_not_made_anew_without_labels() -> None:
    raw = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: 5}}\n---\n"
    found = read(raw + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: a}\n")
    assert list(found.objects) == [("ConfigMap", Key("a", "m"))]
    (refused,) = found.refused
    assert str(refused) == (
        "f.yaml:3: Namespace a: metadata.labels.x: text is expected, and this is 5 (put it in quotes)"
    )


def test_a_list_is_its_items() -> None:
    text = """
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: b}
  data: {x: 5}
"""
    found = read(text)
    assert ("ConfigMap", Key("default", "a")) in found.objects
    assert [str(refused) for refused in found.refused] == [
        "f.yaml:11: ConfigMap default/b: data.x: text is expected, and this is 5 (put it in quotes)"
    ]


def test_of_two_that_define_one_object_the_first_counts_even_when_it_is_wrong() -> None:
    good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: one}\n"
    found = read(f"{good}---\n{good.replace('one', 'two')}")
    assert found.objects["ConfigMap", Key("default", "a")]["data"] == {"k": "one"}
    assert [str(refused) for refused in found.refused] == [
        "f.yaml:6: ConfigMap default/a: is already defined at f.yaml:1; the first one counts "
        "(remove or rename one of them)"
    ]
    assert len(read(f"{good.replace('one', '1')}---\n{good}").refused) == 2


def test_string_data_of_a_secret_becomes_data_and_wins() -> None:
    encoded = base64.b64encode(b"old").decode()
    raw = only(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
        f"data: {{a: {encoded}, b: {encoded}}}\nstringData: {{b: 'grüße', c: ''}}\n"
    )
    assert raw["data"] == {"a": encoded, "b": base64.b64encode("grüße".encode()).decode(), "c": ""}
    assert "stringData" not in raw


def test_a_secrets_value_is_never_shown() -> None:
    said = refusal("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: 'hunter2!'}\n")
    assert said == (
        "f.yaml:4: Secret default/s: data.password: the value is not base64 (use stringData for plain text)"
    )


def test_what_a_dump_of_a_cluster_says_is_left_out() -> None:
    raw = only(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, uid: u, resourceVersion: '5', generation: 3,"
        " creationTimestamp: '2020-01-01T00:00:00Z', managedFields: [], labels: null}\ndata: null\nstatus: {x: 1}\n"
    )
    assert raw == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}


def test_what_something_else_makes_again_is_left_out_with_a_word() -> None:
    owner = "{controller: true, kind: ReplicaSet, name: web-1, uid: u, apiVersion: apps/v1}"
    found = read(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a, ownerReferences: [{owner}]}}\nspec: {{}}\n")
    assert (found.objects, found.refused) == ({}, ())
    assert found.notices == ("f.yaml:1: Pod default/a: left out, since its ReplicaSet web-1 makes its own",)


def test_the_control_planes_objects_stay_the_engines() -> None:
    own = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "istio-system", "name": "heddle-ca"}}
    text = "apiVersion: v1\nkind: Service\nmetadata: {namespace: istio-system, name: heddle-ca}\n---\n"
    text += "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n---\n"
    text += "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: istio-system, name: mine}\n"
    found = read(text, control_plane_objects([own]))
    assert list(found.objects) == [("ConfigMap", Key("istio-system", "mine"))]
    assert len(found.notices) == 2


@pytest.mark.parametrize(("kind", "spec"), [("ServiceEntry", "{hosts: [a.example.com], ports: []}"), ("Sidecar", "{}")])
def test_istios_kinds_without_effect_are_kept_and_named_once(kind: str, spec: str) -> None:
    text = f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n"
    found = read(text)
    assert (kind, Key("default", "a")) in found.objects
    assert found.refused == ()
    says = f"f.yaml:2: {kind} default/a: kind: Heddle knows {kind} and does not act upon it yet: it has no effect"
    assert found.notices.count(says) == 1


def test_istios_kinds_without_effect_are_checked() -> None:
    said = refusal(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec: {hosts: ['*']}\n"
    )
    assert "spec.hosts[0]: * would be every host" in said


def test_other_kinds_are_named() -> None:
    found = read("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}\n")
    assert found.notices == ("f.yaml:1: StatefulSet default/a: `heddle local` does not act upon this kind",)


def test_a_misspelt_kind_of_istios_is_an_error() -> None:
    said = refusal("apiVersion: networking.istio.io/v1\nkind: VirtualServise\nmetadata: {name: a}\n")
    assert "Istio has no kind 'VirtualServise' (did you mean VirtualService?)" in said


def test_every_error_of_an_istio_object_has_its_line() -> None:
    said = refusal(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n"
        "  servers:\n  - hosts: ['*']\n    port: {number: 80, name: http, protocol: HTTPP}\n  selectors: {}\n"
    )
    first, second = sorted(said.splitlines())
    assert first.startswith("f.yaml:7: Gateway default/g: spec.servers[0].port.protocol: ")
    assert second.startswith("f.yaml:8: Gateway default/g: spec.selectors: there is no field 'selectors'")


SERVICE = """apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: 10.96.1.1
  ports: [{{port: 1}}]
"""


def test_of_two_services_with_one_address_the_first_counts() -> None:
    found = read(SERVICE.format(name="a") + "---\n" + SERVICE.format(name="b"))
    assert ("Service", Key("default", "b")) not in found.objects
    assert [str(refused) for refused in found.refused] == [
        "f.yaml:12: Service default/b: spec.clusterIP: Service default/a asks for 10.96.1.1 too, at f.yaml:1; "
        "the first one counts (leave it out, or choose another address)"
    ]


def test_what_has_no_effect_is_named_with_its_line() -> None:
    found = read("""apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  paused: false
  revisionHistoryLimit: 3
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      priorityClassName: high
      containers: [{name: c, image: i, resources: {limits: {cpu: 1}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  sessionAffinity: ClientIP
  externalTrafficPolicy: Cluster
  loadBalancerIP: 1.2.3.4
  ports: [{port: 80}]
""")
    assert found.refused == ()
    assert sorted(found.notices) == sorted(
        (
            "f.yaml:21: Service default/web: spec.sessionAffinity has no effect in `heddle local`",
            "f.yaml:23: Service default/web: spec.loadBalancerIP has no effect in `heddle local`",
            "f.yaml:6: Deployment default/web: spec.revisionHistoryLimit has no effect in `heddle local`",
            "f.yaml:9: Deployment default/web: spec.strategy.rollingUpdate has no effect in `heddle local`",
            "f.yaml:1: Deployment default/web: not honoured on one machine: spec.priorityClassName, "
            "spec.containers[].resources",
        )
    )
