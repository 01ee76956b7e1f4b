"""The webhook at a real API server: real pods of every kind of workload, created by the real controllers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kube.client import Refused
from mesh.errors import HeddleError
from tests.agent.control_plane import eventually
from tests.cluster.api_server import ApiServer
from tests.cluster.webhooks import CONFIGURATIONS, Place, configuration, names, pods, ready_namespace, serving, settings
from tests.support.waiting import wait_for
from tests.webhook.harness import WebhookProcess

pytestmark = pytest.mark.usefixtures("cluster_is_ours")  # its API server calls a webhook of this process

Raw = dict[str, Any]
SIDECAR = ["istio-init", "istio-proxy"]


@pytest.fixture(scope="module")
def webhook(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, WebhookProcess]]:
    with serving(api_server, tmp_path_factory.mktemp("webhook")) as made:
        yield made


@pytest.fixture
def namespace(webhook: tuple[Place, WebhookProcess]) -> Iterator[str]:
    place, _ = webhook
    with ready_namespace(place.api, {"istio.io/rev": place.revision}) as name:
        yield name


@pytest.fixture
def api(webhook: tuple[Place, WebhookProcess]) -> ApiServer:
    return webhook[0].api


def template(**spec: Any) -> Raw:
    return {
        "metadata": {"labels": {"app": "web", "version": "v1"}},
        "spec": {"containers": [{"name": "web", "image": "example.org/web:1"}], **spec},
    }


def pod(name: str = "web", annotations: dict[str, str] | None = None, **spec: Any) -> Raw:
    made = template(**spec)
    return {**made, "metadata": {**made["metadata"], "name": name, "annotations": annotations or {}}}


def create(api: ApiServer, namespace: str, raw: Raw, **query: str) -> Raw:
    path = f"/api/v1/namespaces/{namespace}/pods"
    created: Raw = api.client.call("POST", path, query=query, body=raw)
    return created


SELECTOR = {"selector": {"matchLabels": {"app": "web"}}}
WORKLOADS: dict[str, tuple[str, Raw]] = {
    "Deployment": ("/apis/apps/v1/namespaces/{}/deployments", {"replicas": 2, **SELECTOR, "template": template()}),
    "ReplicaSet": ("/apis/apps/v1/namespaces/{}/replicasets", {**SELECTOR, "template": template()}),
    "StatefulSet": (
        "/apis/apps/v1/namespaces/{}/statefulsets",
        {"serviceName": "web", **SELECTOR, "template": template()},
    ),
    "Job": ("/apis/batch/v1/namespaces/{}/jobs", {"template": template(restartPolicy="Never")}),
    "CronJob": (
        "/apis/batch/v1/namespaces/{}/cronjobs",
        {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template(restartPolicy="OnFailure")}}},
    ),
    "ReplicationController": (
        "/api/v1/namespaces/{}/replicationcontrollers",
        {"selector": {"app": "web"}, "template": template()},
    ),
}


@pytest.mark.parametrize("kind", sorted(set(WORKLOADS) - {"CronJob"}))
def test_pods_of_a_workload_get_their_sidecar(api: ApiServer, namespace: str, kind: str) -> None:
    path, spec = WORKLOADS[kind]
    api.client.post(path.format(namespace), {"metadata": {"name": "web"}, "spec": spec})
    eventually(lambda: len(pods(api, namespace)) == spec.get("replicas", 1), timeout=90)
    for made in pods(api, namespace):
        assert names(made) == SIDECAR
        assert made["metadata"]["labels"]["service.istio.io/canonical-name"] == "web"
        assert (
            made["metadata"]["annotations"]["istio.io/rev"]
            in made["metadata"]["annotations"]["sidecar.istio.io/status"]
        )


def test_a_cron_jobs_job(api: ApiServer, namespace: str) -> None:
    """What the controller makes when it is time, made at once as `kubectl create job --from` does."""
    path, spec = WORKLOADS["CronJob"]
    cron = api.client.post(path.format(namespace), {"metadata": {"name": "nightly"}, "spec": spec})
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": cron["metadata"]["uid"]}
    job = {"metadata": {"name": "nightly-29394720", "ownerReferences": [owner]}, "spec": spec["jobTemplate"]["spec"]}
    api.client.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job)
    eventually(lambda: len(pods(api, namespace)) == 1, timeout=90)
    (made,) = pods(api, namespace)
    assert names(made) == SIDECAR
    assert made["metadata"]["labels"]["service.istio.io/canonical-name"] == "web"


def test_a_daemon_sets_pod(api: ApiServer, namespace: str) -> None:
    node = api.client.post("/api/v1/nodes", {"metadata": {"generateName": "n-"}})
    try:
        path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
        tolerations = [{"operator": "Exists"}]
        spec = {**SELECTOR, "template": template(tolerations=tolerations)}
        api.client.post(path, {"metadata": {"name": "web"}, "spec": spec})
        eventually(lambda: pods(api, namespace), timeout=90)
        assert {tuple(names(made)) for made in pods(api, namespace)} == {tuple(SIDECAR)}
    finally:
        api.client.delete(f"/api/v1/nodes/{node['metadata']['name']}")


PROBE = {"periodSeconds": 5, "timeoutSeconds": 2}
SHAPES: dict[str, Raw] = {
    "plain": pod(),
    "not native": pod(annotations={"sidecar.istio.io/nativeSidecar": "false"}),
    "held": pod(
        annotations={
            "sidecar.istio.io/nativeSidecar": "false",
            "proxy.istio.io/config": "holdApplicationUntilProxyStarts: true",
        }
    ),
    "gateway": pod(
        annotations={"inject.istio.io/templates": "gateway"},
        containers=[{"name": "istio-proxy", "image": "auto", "ports": [{"containerPort": 443, "name": "https"}]}],
    ),
    "inits": pod(initContainers=[{"name": "migrate", "image": "x"}, {"name": "z", "image": "x"}]),
    "own proxy": pod(
        containers=[
            {"name": "web", "image": "x"},
            {
                "name": "istio-proxy",
                "image": "auto",
                "resources": {"limits": {"cpu": "3"}},
                "env": [{"name": "LOG_LEVEL", "value": "debug"}],
                "readinessProbe": {"exec": {"command": ["true"]}},
            },
        ]
    ),
    "own init": pod(initContainers=[{"name": "istio-init", "image": "auto", "resources": {"limits": {"cpu": "1"}}}]),
    "everything asked": pod(
        annotations={
            "sidecar.istio.io/proxyCPU": "10m",
            "sidecar.istio.io/proxyMemoryLimit": "256Mi",
            "sidecar.istio.io/logLevel": "debug",
            "sidecar.istio.io/componentLogLevel": "misc:error",
            "sidecar.istio.io/agentLogLevel": "debug",
            "sidecar.istio.io/bootstrapOverride": "mine",
            "sidecar.istio.io/statsHistogramBuckets": '{"istiocustom": [1, 5]}',
            "sidecar.istio.io/userVolume": '{"certs": {"emptyDir": {}}}',
            "sidecar.istio.io/userVolumeMount": '{"certs": {"mountPath": "/certs"}}',
            "traffic.sidecar.istio.io/excludeOutboundPorts": "5432",
            "istio.io/reroute-virtual-interfaces": "net1",
            "prometheus.io/port": "9090",
            "proxy.istio.io/config": "{concurrency: 1, proxyMetadata: {A: b}, terminationDrainDuration: 10s}",
        }
    ),
    "probes": pod(
        containers=[
            {
                "name": "web",
                "image": "x",
                "ports": [{"name": "http", "containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": "http", "path": "/l", "scheme": "HTTPS"}, **PROBE},
                "readinessProbe": {"tcpSocket": {"port": "http"}, **PROBE},
                "startupProbe": {"grpc": {"port": 9090, "service": "s"}, **PROBE},
                "lifecycle": {"preStop": {"httpGet": {"port": "http"}}, "postStart": {"exec": {"command": ["true"]}}},
            },
            {"name": "exec", "image": "x", "livenessProbe": {"exec": {"command": ["true"]}, **PROBE}},
        ],
        initContainers=[
            {
                "name": "cache",
                "image": "x",
                "restartPolicy": "Always",
                "startupProbe": {"httpGet": {"port": 81}, **PROBE},
                "lifecycle": {"preStop": {"httpGet": {"port": 81, "path": "/flush"}}},
            }
        ],
    ),
    "other user": pod(securityContext={"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 1000}),
    "service account without token": pod(automountServiceAccountToken=False),
    "long name": pod(name="w" * 253),
    "no grace": pod(terminationGracePeriodSeconds=0),
    "no proxy's sysctl": pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}),
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_what_comes_out_passes_the_servers_validation_and_a_second_injection_changes_nothing(
    api: ApiServer, namespace: str, shape: str
) -> None:
    made = create(api, namespace, SHAPES[shape], fieldValidation="Strict")
    assert "istio-proxy" in [*names(made), *names(made, "containers")]
    assert "sidecar.istio.io/status" in made["metadata"]["annotations"]
    meta = made["metadata"]
    again = {
        "metadata": {"name": "again", "labels": meta["labels"], "annotations": meta["annotations"]},
        "spec": made["spec"],
    }
    second = create(api, namespace, again, fieldValidation="Strict")
    assert second["spec"] == made["spec"]
    assert second["metadata"]["labels"] == meta["labels"]
    assert second["metadata"]["annotations"] == meta["annotations"]


def test_a_dry_run_shows_the_sidecar_and_leaves_nothing(api: ApiServer, namespace: str) -> None:
    assert names(create(api, namespace, pod(), dryRun="All")) == SIDECAR
    assert pods(api, namespace) == []


def test_probes_are_asked_of_the_agent(api: ApiServer, namespace: str) -> None:
    made = create(api, namespace, SHAPES["probes"])
    proxy = next(c for c in made["spec"]["initContainers"] if c["name"] == "istio-proxy")
    asked = json.loads(next(e["value"] for e in proxy["env"] if e["name"] == "ISTIO_KUBE_APP_PROBERS"))
    assert asked == {
        "/app-health/web/livez": {"httpGet": {"port": 80, "path": "/l", "scheme": "HTTPS"}, "timeoutSeconds": 2},
        "/app-health/web/readyz": {"tcpSocket": {"port": 80}, "timeoutSeconds": 2},
        "/app-health/web/startupz": {"grpc": {"port": 9090, "service": "s"}, "timeoutSeconds": 2},
        "/app-lifecycle/web/prestopz": {
            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 120,
        },
        "/app-health/cache/startupz": {
            "httpGet": {"port": 81, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 2,
        },
        "/app-lifecycle/cache/prestopz": {
            "httpGet": {"port": 81, "path": "/flush", "scheme": "HTTP"},
            "timeoutSeconds": 120,
        },
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traffic.sidecar.istio.io/excludeInboundPorts", "http"),
        ("proxy.istio.io/config", "concurrency: many"),
        ("inject.istio.io/templates", "sidecar,unheard-of"),
        ("sidecar.istio.io/userVolume", "certs"),
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
    ],
)
def test_an_annotation_that_cannot_be_read_refuses_the_pod(
    api: ApiServer, namespace: str, name: str, value: str
) -> None:
    with pytest.raises(Refused) as caught:
        create(api, namespace, pod(annotations={name: value}))
    assert caught.value.status == 400
    assert name in str(caught.value)
    assert f"Pod {namespace}/web" in str(caught.value)


def test_who_gets_none(api: ApiServer, webhook: tuple[Place, WebhookProcess], namespace: str) -> None:
    revision = webhook[0].revision
    assert names(create(api, namespace, {**pod(), "metadata": {**pod()["metadata"], "labels": {
        "sidecar.istio.io/inject": "false"}}})) == []  # fmt: skip
    assert names(create(api, namespace, pod(name="host", hostNetwork=True))) == []
    with ready_namespace(api, {"istio.io/rev": "another"}) as other:
        assert names(create(api, other, pod())) == []
        labelled = {**pod("yes"), "metadata": {"name": "yes", "labels": {"istio.io/rev": revision}}}
        assert names(create(api, other, labelled)) == []  # the namespace's revision goes before the pod's
    with ready_namespace(api, {"istio.io/rev": revision, "istio-injection": "disabled"}) as off:
        assert names(create(api, off, pod())) == []
    with ready_namespace(api) as silent:
        assert names(create(api, silent, pod())) == []
        chosen = {**pod("yes"), "metadata": {"name": "yes", "labels": {"istio.io/rev": revision}}}
        assert names(create(api, silent, chosen)) == SIDECAR


def test_a_revision_tag_leads_to_its_revision_from_the_first_pod_on(
    api: ApiServer, webhook: tuple[Place, WebhookProcess]
) -> None:
    place, process = webhook
    name, tag = f"heddle-revision-tag-{place.revision}", f"tag-{place.revision}"
    raw = configuration(place.revision, name, process.port, value=tag)
    found = api.client.get(f"{CONFIGURATIONS}/{place.configuration}")
    for entry in raw["webhooks"]:
        entry["clientConfig"]["caBundle"] = found["webhooks"][0]["clientConfig"]["caBundle"]
    with ready_namespace(api, {"istio.io/rev": tag}) as tagged:
        try:
            api.client.post(CONFIGURATIONS, raw)
            wait_for(lambda: names(create(api, tagged, pod(), dryRun="All")) == SIDECAR)
            made = create(api, tagged, pod())
            assert made["metadata"]["annotations"]["istio.io/rev"] == place.revision
        finally:
            api.client.delete(f"{CONFIGURATIONS}/{name}")


def test_templates_and_values_are_followed(
    api: ApiServer, webhook: tuple[Place, WebhookProcess], namespace: str
) -> None:
    place, process = webhook
    name = f"istio-sidecar-injector-{place.revision}"
    custom = "spec: {containers: [{name: istio-proxy, env: [{name: GREETING, value: '{{ pod.labels[\"app\"] }}'}]}]}"
    values = {"global": {"imagePullSecrets": ["registry"], "proxy": {"excludeOutboundPorts": "5432"}}}
    settings(api, name, {"config": json.dumps({"templates": {"custom": custom}}), "values": json.dumps(values)})
    asking = pod(annotations={"inject.istio.io/templates": "sidecar,custom"})

    def taken_over() -> bool:
        try:
            return names(create(api, namespace, asking, dryRun="All")) == SIDECAR
        except Refused:
            return False

    wait_for(taken_over)
    made = create(api, namespace, asking)
    init, proxy = made["spec"]["initContainers"]
    assert {"name": "GREETING", "value": "web"} in proxy["env"]
    assert "--exclude-outbound-ports=5432" in init["args"]
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    settings(api, name, {"config": "templates: {custom: '{{ if }}'}", "values": "{}"})
    wait_for(lambda: "injector settings not taken over" in process.log.read_text())
    assert names(create(api, namespace, pod("later", asking["metadata"]["annotations"]))) == SIDECAR
    api.client.delete(f"/api/v1/namespaces/istio-system/configmaps/{name}")


def test_a_configuration_that_lost_its_roots_gets_them_back(
    api: ApiServer, webhook: tuple[Place, WebhookProcess], namespace: str
) -> None:
    place, _ = webhook
    path = f"{CONFIGURATIONS}/{place.configuration}"
    found = api.client.get(path)
    for entry in found["webhooks"]:
        entry["clientConfig"].pop("caBundle", None)
    api.client.put(path, found)
    wait_for(place.trusted)
    wait_for(lambda: _works(api, namespace))


def _works(api: ApiServer, namespace: str) -> bool:
    try:
        return names(create(api, namespace, pod(), dryRun="All")) == SIDECAR
    except HeddleError:  # until the API server has heard of its own object
        return False


def test_namespaces_of_kubernetes_and_of_the_control_plane_do_not_depend_on_the_webhook(
    api_server: ApiServer, tmp_path: Path
) -> None:
    from tests.cluster.webhooks import place as new_place

    with new_place(api_server, tmp_path) as made:
        made.register(1)  # nobody is there
        label = {"metadata": {"labels": {"istio.io/rev": made.revision, "istio-injection": None}}}
        for name in ("kube-system", "istio-system"):
            api_server.client.merge(f"/api/v1/namespaces/{name}", label)
            account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            eventually(lambda: api_server.client.get(account), timeout=60)  # noqa: B023
            try:
                assert names(create(api_server, name, pod(), dryRun="All")) == []
            finally:
                api_server.client.merge(f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"istio.io/rev": None}}})
        with ready_namespace(api_server, {"istio.io/rev": made.revision}) as blocked:

            def refused() -> bool:
                try:
                    create(api_server, blocked, pod(), dryRun="All")
                except HeddleError as error:
                    return "rev.namespace.sidecar-injector.heddle.dev" in str(error)
                return False

            wait_for(refused)
