"""`heddle inject`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.commands.inject import command
from mesh.errors import HeddleError
from mesh.manifest import ManifestErrors
from mesh.problems import ObjectErrors

POD = {"containers": [{"name": "web", "image": "web:1"}]}
TEMPLATE = {"template": {"metadata": {"labels": {"app": "web"}}, "spec": POD}}
KINDS: dict[tuple[str, str], dict[str, Any]] = {
    ("v1", "Pod"): POD,
    ("v1", "ReplicationController"): TEMPLATE,
    ("apps/v1", "Deployment"): {"selector": {}, **TEMPLATE},
    ("apps/v1", "ReplicaSet"): TEMPLATE,
    ("apps/v1", "StatefulSet"): TEMPLATE,
    ("apps/v1", "DaemonSet"): TEMPLATE,
    ("batch/v1", "Job"): {"template": {"spec": POD}},
    ("batch/v1", "CronJob"): {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": POD}}}},
}


def manifest(version: str, kind: str, name: str = "web", namespace: str = "", **more: Any) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **more}


def inject(*objects: object, options: tuple[str, ...] = ()) -> Result:
    text = objects[0] if isinstance(objects[0], str) else "\n---\n".join(map(json.dumps, objects))
    return CliRunner().invoke(command, ["-f", "-", *options], input=str(text), catch_exceptions=True)


def pod_of(raw: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = raw["spec"]
    if raw["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec if raw["kind"] == "Pod" else spec["template"]["spec"]


@pytest.mark.parametrize(("version", "kind"), KINDS)
def test_every_kind_that_has_a_pod(version: str, kind: str) -> None:
    result = inject(manifest(version, kind, spec=KINDS[version, kind]))
    assert result.exit_code == 0, result.output
    (out,) = yaml.safe_load_all(result.stdout)
    assert [c["name"] for c in pod_of(out)["initContainers"]] == ["istio-init", "istio-proxy"]
    assert pod_of(out)["containers"] == POD["containers"]
    again = inject(out)
    assert list(yaml.safe_load_all(again.stdout)) == [out]


def test_the_rest_comes_out_as_it_went_in_and_in_its_order() -> None:
    service = manifest("v1", "Service", spec={"ports": [{"port": 80, "name": "1e3"}]})
    config = manifest("v1", "ConfigMap", data={"a": "yes", "b": "0123", "c": "1e3", "d": "multi\nline\n", "e": "y"})
    result = inject(service, manifest("v1", "Pod", spec=POD), config)
    first, _, last = yaml.safe_load_all(result.stdout)
    assert (first, last) == (service, config)
    assert "c: '1e3'" in result.stdout  # Go's YAML would read a number
    assert "e: 'y'" in result.stdout


def test_namespaces_of_the_input_decide() -> None:
    off = manifest("v1", "Namespace", "off")
    on = {**manifest("v1", "Namespace", "on"), "metadata": {"name": "on", "labels": {"istio-injection": "enabled"}}}
    pods = [manifest("v1", "Pod", spec=POD, namespace=name) for name in ("off", "on", "kube-system", "")]
    result = inject(*pods, off, on, options=("--explain", "-n", "somewhere"))
    rows = [line.split(maxsplit=3) for line in result.stdout.splitlines()[1:]]
    assert [(row[1], row[2]) for row in rows] == [
        ("off/web", "no"),
        ("on/web", "yes"),
        ("kube-system/web", "no"),
        ("somewhere/web", "yes"),
    ]
    assert "label the namespace istio-injection=enabled" in rows[0][3]
    assert rows[3][3] == "namespace somewhere is not in the input, and taken for labelled istio-injection=enabled"


def test_labels_of_namespaces_that_are_not_in_the_input() -> None:
    pod = manifest("v1", "Pod", spec=POD)
    assert "no" in inject(pod, options=("--explain", "--namespace-labels", "istio-injection=disabled")).stdout
    canary = ("--namespace-labels", "istio.io/rev=canary", "--revision", "canary")
    assert "labelled istio.io/rev=canary" in inject(pod, options=("--explain", *canary)).stdout
    assert isinstance(inject(pod, options=("--namespace-labels", "nonsense")).exception, HeddleError)


def test_lists_and_json() -> None:
    pods = [manifest("v1", "Pod", name, spec=POD) for name in ("a", "b")]
    result = inject({"apiVersion": "v1", "kind": "List", "items": pods}, options=("-o", "json"))
    out = json.loads(result.stdout)
    assert [item["metadata"]["name"] for item in out["items"]] == ["a", "b"]
    assert all("initContainers" in item["spec"] for item in out["items"])
    one = json.loads(inject(pods[0], options=("-o", "json")).stdout)
    assert one["kind"] == "Pod"


def test_the_meshs_settings(tmp_path: Path) -> None:
    settings = tmp_path / "mesh.yaml"
    settings.write_text(
        "trustDomain: example.org\nheddle: {image: 'registry.example/heddle:9', nativeSidecars: false}\n"
    )
    result = inject(manifest("v1", "Pod", spec=POD), options=("--mesh-config", str(settings)))
    (out,) = yaml.safe_load_all(result.stdout)
    proxy = out["spec"]["containers"][0]
    assert (proxy["name"], proxy["image"]) == ("istio-proxy", "registry.example/heddle:9")
    assert {"name": "TRUST_DOMAIN", "value": "example.org"} in proxy["env"]


def test_the_injectors_settings(tmp_path: Path) -> None:
    settings = tmp_path / "injector.yaml"
    data = {
        "config": "templates: {mine: 'spec: {containers: [{name: istio-proxy, env: [{name: A, value: b}]}]}'}",
        "values": "global: {imagePullPolicy: Never}",
    }
    settings.write_text(json.dumps({**manifest("v1", "ConfigMap", "istio-sidecar-injector"), "data": data}))
    pod = manifest("v1", "Pod", spec=POD)
    pod["metadata"]["annotations"] = {"inject.istio.io/templates": "sidecar,mine"}
    (out,) = yaml.safe_load_all(inject(pod, options=("--injector-config", str(settings))).stdout)
    proxy = out["spec"]["initContainers"][1]
    assert {"name": "A", "value": "b"} in proxy["env"]
    assert proxy["imagePullPolicy"] == "Never"
    settings.write_text(json.dumps(manifest("v1", "Pod", spec=POD)))
    assert "has no ConfigMap with data" in str(inject(pod, options=("--injector-config", str(settings))).exception)


def test_warnings_go_to_standard_error() -> None:
    pod = manifest("v1", "Pod", spec=POD)
    pod["metadata"]["annotations"] = {"sidecar.istio.io/enableCoreDump": "true"}
    result = inject(pod)
    assert result.stderr == (
        "warning: Pod default/web: annotation sidecar.istio.io/enableCoreDump is not acted on: it would take a "
        "privileged container\n"
    )
    assert "warning" not in result.stdout


def test_mistakes() -> None:
    pod = manifest("v1", "Pod", spec=POD)
    pod["metadata"]["annotations"] = {"sidecar.istio.io/interceptionMode": "TPROXY"}
    error = inject(pod).exception
    assert isinstance(error, ObjectErrors)
    assert "Pod default/web" in str(error)
    no_template = inject(manifest("apps/v1", "Deployment", spec={})).exception
    assert isinstance(no_template, ObjectErrors)
    assert "Deployment default/web: spec.template" in str(no_template)
    assert isinstance(inject("a: [").exception, ManifestErrors)
    missing = CliRunner().invoke(command, ["-f", "/nowhere/at/all.yaml"]).exception
    assert isinstance(missing, HeddleError)
    assert "cannot be read" in str(missing)
