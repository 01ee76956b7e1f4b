"""ProxyConfig objects in an injected pod: the order of Istio's, field by field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from kube.source import Changed, Listed
from mesh.proxy_configs import proxy_configs
from mesh.settings import HeddleSettings, MeshSettings, parse_mesh_settings
from tests.mesh.test_proxy_configs import config as proxy_config
from webhook.cluster import Cluster
from webhook.config import InjectionConfig, for_pod
from webhook.inject import advice, inject
from webhook.workloads import inject_object

Raw = dict[str, Any]
ROOT = "istio-system"
MESH = proxy_config("mesh", ROOT, concurrency=3, environmentVariables={"A": "mesh", "B": "mesh"})
SHOP = proxy_config("shop", "shop", concurrency=4, environmentVariables={"B": "shop", "C": "shop"})
WEB = proxy_config("web", "shop", {"app": "web"}, concurrency=0, environmentVariables={"D": "web"})


def settings(*objects: Any, text: str = "defaultConfig: {proxyMetadata: {A: default, Z: default}}") -> InjectionConfig:
    return InjectionConfig(settings=parse_mesh_settings(text), proxy_configs=proxy_configs(objects, ROOT))


def pod(app: str = "web", annotation: str = "", **annotations: str) -> Raw:
    if annotation:
        annotations["proxy.istio.io/config"] = annotation
    return {
        "metadata": {"name": "web", "labels": {"app": app}, "annotations": annotations},
        "spec": {"containers": [{"name": "web"}]},
    }


def proxy_of(config: InjectionConfig, raw: Raw, namespace: str = "shop") -> tuple[Raw, Raw]:
    """Its container, and PROXY_CONFIG."""
    injected = inject(raw, for_pod(config, namespace, raw["metadata"]["labels"]))
    container = injected["spec"]["initContainers"][1]
    (text,) = [each["value"] for each in container["env"] if each["name"] == "PROXY_CONFIG"]
    return container, json.loads(text)


def variables(container: Raw) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"] if each["name"] in "ABCDZ"}


def test_each_goes_before_the_one_before() -> None:
    """The object that selects the pod goes before the pod's annotation, and that before the others."""
    all_of_them = settings(MESH, SHOP, WEB)
    container, said = proxy_of(
        all_of_them, pod(annotation='{"concurrency": 7, "proxyMetadata": {"D": "pod", "C": "pod"}}')
    )
    assert said["concurrency"] == 0
    assert variables(container) == {"A": "mesh", "B": "shop", "C": "pod", "D": "web", "Z": "default"}
    assert proxy_of(all_of_them, pod("db", '{"concurrency": 7}'))[1]["concurrency"] == 7
    assert proxy_of(all_of_them, pod("db"))[1]["concurrency"] == 4
    assert proxy_of(all_of_them, pod("db"), "elsewhere")[1]["concurrency"] == 3
    assert proxy_of(settings(), pod())[1]["concurrency"] == 2


def test_who_the_pod_is_and_whom_it_asks_stays_the_meshs() -> None:
    mine = proxy_config("a", ROOT, environmentVariables={"CA_ADDR": "evil:1", "TRUST_DOMAIN": "evil"})
    container, _ = proxy_of(settings(mine), pod())
    told = [each["value"] for each in container["env"] if each["name"] in ("CA_ADDR", "TRUST_DOMAIN")]
    assert told == ["cluster.local", "heddle-ca.istio-system.svc:15013"]


def test_the_pod_remembers_which_it_took() -> None:
    config = for_pod(settings(MESH, WEB), "shop", {"app": "web"})
    status = json.loads(inject(pod(), config)["metadata"]["annotations"]["sidecar.istio.io/status"])
    assert status["proxyConfigs"].keys() == {"istio-system/mesh", "shop/web"}
    status = json.loads(inject(pod(), settings())["metadata"]["annotations"]["sidecar.istio.io/status"])
    assert "proxyConfigs" not in status


def test_an_image_type_that_there_is_and_one_that_there_is_not() -> None:
    debug = proxy_config("debug", "shop", image={"imageType": "debug"})
    heddle = HeddleSettings(image="example.org/heddle:1", image_types=("debug",))
    config = replace(settings(debug), settings=MeshSettings(heddle=heddle))
    assert proxy_of(config, pod())[0]["image"] == "example.org/heddle:1-debug"
    annotated = pod(**{"sidecar.istio.io/proxyImageType": "default"})
    assert proxy_of(config, annotated)[0]["image"] == "example.org/heddle:1"
    lacking = pod(**{"sidecar.istio.io/proxyImageType": "distroless"})
    assert proxy_of(config, lacking)[0]["image"] == "example.org/heddle:1"
    (warning,) = advice(lacking, config)
    assert "no such variant (meshConfig heddle.imageTypes names those that there are)" in warning
    own = pod(**{"sidecar.istio.io/proxyImage": "example.org/mine:2"})
    assert proxy_of(config, own)[0]["image"] == "example.org/mine:2"
    by_annotation = pod("db", '{"image": {"imageType": "debug"}}')
    without = replace(config, proxy_configs=proxy_configs([], ROOT))
    assert proxy_of(without, by_annotation)[0]["image"] == "example.org/heddle:1-debug"


def test_manifests_too() -> None:
    template = {"spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "w"}]}}}}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, **template}
    found = inject_object(deployment, "shop", {"istio-injection": "enabled"}, settings(WEB))
    assert found is not None
    assert '"concurrency":0' in json.dumps(found.object).replace("\\", "").replace(" ", "")


# ---- as the watch tells of them


def raw(name: str, namespace: str, **spec: Any) -> Raw:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def concurrency(cluster: Cluster) -> int:
    found: int = proxy_of(cluster.config, pod())[1]["concurrency"]
    return found


def test_changes_are_followed_and_a_wrong_object_leaves_the_last_good_one_in_force() -> None:
    cluster = Cluster(InjectionConfig(), lambda _path: {})
    cluster.on_event(Listed("ProxyConfig", (raw("a", "shop", concurrency=5),), 1))
    assert concurrency(cluster) == 5
    cluster.on_event(Changed("ProxyConfig", raw("a", "shop", concurrency=6), False, 2))
    assert concurrency(cluster) == 6
    cluster.on_event(Changed("ProxyConfig", raw("a", "shop", concurrency=-1), False, 3))
    assert concurrency(cluster) == 6
    cluster.on_event(Changed("ProxyConfig", raw("a", "shop"), True, 4))
    assert concurrency(cluster) == 2
    cluster.on_event(Listed("ProxyConfig", (raw("a", "shop", concurrency=5), raw("b", "policy", concurrency=8)), 5))
    cluster.on_event(Listed("ProxyConfig", (raw("b", "policy", concurrency=8),), 6))
    assert concurrency(cluster) == 2
    text = {"metadata": {"name": "istio", "namespace": ROOT}, "data": {"mesh": "rootNamespace: policy"}}
    cluster.on_event(Changed("mesh settings", text, False, 7))
    assert concurrency(cluster) == 8, "it is in the root namespace now"
