"""`heddle install` on a cluster with a node: real pods, each component under its own service account."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.admission import ENFORCED
from mesh.errors import HeddleError
from tests.cli.run import heddle as command
from tests.cluster.cluster import Cluster
from tests.cluster.installing import NAMESPACE as HOME
from tests.cluster.installing import find, heddle, inventory, uninstall, versions
from tests.cluster.rights import denied, unused, uses
from tests.support.waiting import wait_for
from webhook.overrides import REASON
from webhook.preflight import ANYWAY

NOT_USED_HERE = {
    "ca": (
        "get pods",  # the watch of pods is behind a caller
        "patch workloadcertificates",  # a renewal
        "list workloadcertificates",  # after some minutes
        "create events",
        "patch events",  # a refusal
        "update secrets",  # a rotation of the root
        "get leases",
        "update leases",
        "create leases",  # who drives it
    ),
    "webhook": (
        "get namespaces",  # the watch of namespaces is behind a pod
        "get customresourcedefinitions",  # ProxyConfig is served
    ),
    "discovery": (
        "patch ",  # the status of Istio's objects, of which there are none
        "get customresourcedefinitions",  # all of them are served
    ),
}
"""Rights, by how they begin, that an installation and a few injected pods have no use for; tests of that use them."""


GATEWAY = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "edge"},
    "spec": {
        "selector": {"istio": "ingressgateway"},
        "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["refused.example"]}],
    },
}
REFUSED: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "refused"},
    "spec": {
        "hosts": ["refused.example"],
        "gateways": ["edge"],
        "http": [
            {
                "headers": {"request": {"set": {"x-from": "%NO_SUCH_COMMAND%"}}},
                "redirect": {"uri": "/elsewhere"},
            }
        ],
    },
}
"""What an Envoy of the gateway refuses."""


@pytest.fixture(scope="module")
def recorded_before(cluster: Cluster) -> int:
    """Lines of the audit log that are of other tests, which take installations away while their pods still run."""
    return 0 if cluster.control_plane is None else len(cluster.control_plane.audit_log.read_text().splitlines())


@pytest.fixture(scope="module")
def installed(cluster: Cluster, recorded_before: int) -> Iterator[Cluster]:
    """With the profile `default`, in a namespace that enforces pod security `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.client.post("/api/v1/namespaces", {"metadata": {"name": HOME, "labels": labels}})
    ran = heddle(cluster, "install", "-y", "--timeout=240")
    assert ran.code == 0, ran.err
    yield cluster
    # The ca, which is still about to end, keeps the roots in each labelled namespace; taken away they stay away.
    with cluster.namespace({"istio-injection": "enabled"}) as labelled:
        roots = f"/api/v1/namespaces/{labelled}/configmaps/istio-ca-root-cert"
        wait_for(lambda: find(cluster.client, roots) is not None)
        removed = uninstall(cluster, "--purge")
        assert "still being deleted" not in removed.err
        assert find(cluster.client, roots) is None
    assert find(cluster.client, f"/api/v1/namespaces/{HOME}") is None


@pytest.mark.timeout(600)
def test_every_component_is_ready_and_nothing_is_wrong(installed: Cluster) -> None:
    done = heddle(installed, "doctor")
    assert (done.code, done.out.strip()) == (0, "✔ Nothing is wrong.")
    pods = installed.client.get(f"/api/v1/namespaces/{HOME}/pods")["items"]
    of_app: dict[str, int] = {}
    for pod in pods:
        of_app[pod["metadata"]["labels"]["app"]] = of_app.get(pod["metadata"]["labels"]["app"], 0) + 1
    assert of_app == {"heddle-ca": 2, "heddle-discovery": 2, "heddle-webhook": 2, "istio-ingressgateway": 2}


def test_again_changes_nothing(installed: Cluster) -> None:
    _eventually(lambda: _settled(installed))
    before = versions(installed.client, inventory(installed.client))
    ran = heddle(installed, "install", "-y", "--timeout=60")
    assert ran.code == 0, ran.err
    assert versions(installed.client, inventory(installed.client)) == before


@pytest.mark.timeout(300)
def test_a_pod_of_a_labelled_namespace_gets_a_sidecar_that_works(installed: Cluster) -> None:
    with installed.namespace({"istio-injection": "enabled"}) as namespace:
        spec: dict[str, Any] = {
            "containers": [
                {
                    "name": "app",
                    "image": "docker.io/heddle/heddle:0.1.0",
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "600"],
                }
            ]
        }
        _create(installed, f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "a"}, "spec": spec})
        installed.wait_pod(namespace, "a")
        certificate = _eventually(
            lambda: find(installed.client, f"/apis/heddle.dev/v1/namespaces/{namespace}/workloadcertificates/a")
        )
        assert certificate["spec"]["identity"] == f"spiffe://cluster.local/ns/{namespace}/sa/default"


def test_status_is_that_of_all_replicas_and_names_them(installed: Cluster) -> None:
    waited = heddle(installed, "status", "--wait=60", "-o", "json")
    status = json.loads(waited.out)
    assert (waited.code, status["problems"]) == (0, []), waited.out
    assert status["components"] == {"ca": "running", "discovery": "running", "webhook": "running"}
    pods = installed.client.get(f"/api/v1/namespaces/{HOME}/pods")["items"]
    gateways = {pod["metadata"]["name"] for pod in pods if pod["metadata"]["labels"]["app"] == "istio-ingressgateway"}
    replicas = {pod["metadata"]["name"] for pod in pods if pod["metadata"]["labels"]["app"] == "heddle-discovery"}
    assert {proxy["pod"] for proxy in status["proxies"] if proxy["namespace"] == HOME} == gateways
    assert {proxy["replica"] for proxy in status["proxies"]} <= replicas
    one = heddle(installed, "status", min(gateways))
    assert one.code == 0, one.out
    assert one.out.splitlines()[1].split()[0] == f"{HOME}/{min(gateways)}"
    assert one.out.splitlines()[-1] == "ready: every proxy has applied what is current"


def test_config_of_a_pod_is_what_its_envoy_says(installed: Cluster) -> None:
    many = heddle(installed, "config", "istio-ingressgateway", "clusters", "-n", HOME)
    assert (many.code, "write more of the name" in many.err) == (1, True)
    pods = installed.client.get(f"/api/v1/namespaces/{HOME}/pods?labelSelector=app%3Distio-ingressgateway")["items"]
    done = heddle(installed, "config", f"{HOME}/{pods[0]['metadata']['name']}", "clusters", "-o", "json")
    assert done.code == 0, done.err
    names = {cluster["name"] for cluster in json.loads(done.out)}
    assert "outbound|443||kubernetes.default.svc.cluster.local" in names
    assert heddle(installed, "config", "no-such", "routes").err.startswith("heddle: there is no pod no-such (")


def test_status_is_for_those_who_may_run_commands_beside_discovery(installed: Cluster, tmp_path: Path) -> None:
    installed.as_service_account(HOME, "reader", tmp_path)
    as_reader = tmp_path / f"{HOME}.reader.kubeconfig"
    names = (f"-n{HOME}", "reader")
    try:
        nothing = command("status", f"--kubeconfig={as_reader}")
        assert (nothing.code, nothing.out) == (1, "")
        assert nothing.err.startswith(f"heddle: you may not list the pods of namespace {HOME} (")
        installed.kubectl("create", "role", *names, "--verb=list", "--resource=pods")
        installed.kubectl("create", "rolebinding", *names, "--role=reader", f"--serviceaccount={HOME}:reader")
        little = command("status", f"--kubeconfig={as_reader}")
        assert little.code == 3
        assert "you may not run a command in discovery of pod" in little.out
        assert "it takes the verbs get and create on pods/exec there" in little.out
        rules = [{"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["list", "get", "create"]}]
        installed.kubectl("patch", "role", *names, "--type=merge", "-p", json.dumps({"rules": rules}))
        assert command("status", "--wait=30", f"--kubeconfig={as_reader}").code == 0
    finally:
        for kind in ("rolebinding", "role", "serviceaccount"):
            installed.kubectl("delete", kind, *names, "--ignore-not-found")


@pytest.mark.timeout(300)
def test_a_revision_beside_it_injects_the_pods_of_its_tag(installed: Cluster) -> None:
    ran = heddle(installed, "install", "-y", "--profile=minimal", "--revision=canary", "--timeout=240")
    assert ran.code == 0, ran.err
    try:
        assert heddle(installed, "tag", "set", "prod", "--revision=canary").code == 0
        with installed.namespace({"istio.io/rev": "prod"}) as namespace:
            container = {"name": "app", "image": "docker.io/heddle/heddle:0.1.0", "imagePullPolicy": "Never"}
            pod = {"metadata": {"name": "a"}, "spec": {"containers": [{**container, "command": ["sleep", "600"]}]}}
            _create(installed, f"/api/v1/namespaces/{namespace}/pods", pod)
            made = installed.wait_pod(namespace, "a")
            status = json.loads(made["metadata"]["annotations"]["sidecar.istio.io/status"])
            assert status["revision"] == "canary"
            assert f"heddle-ca-canary.{HOME}.svc" in json.dumps(made["spec"])
    finally:
        uninstall(installed, "--revision=canary")


def test_what_is_admitted_all_the_same_is_recorded_on_the_object(installed: Cluster) -> None:
    with installed.namespace() as namespace:
        istio = f"/apis/networking.istio.io/v1/namespaces/{namespace}"
        installed.client.post(f"{istio}/gateways", GATEWAY)

        def create(reason: str = "", **query: str) -> str:
            body = copy.deepcopy(REFUSED)
            body["metadata"] |= {"annotations": {ANYWAY: reason}} if reason else {}
            try:
                installed.client.call("POST", f"{istio}/virtualservices", query=query, body=body)
            except HeddleError as error:
                return error.message
            return ""

        # Once discovery, which is asked, knows the Gateway.
        wait_for(lambda: "NO_SUCH_COMMAND" in create(dryRun="All"))
        assert create("it is known tomorrow", dryRun="All") == ""
        assert create("it is known today") == ""
        uid = installed.client.get(f"{istio}/virtualservices/refused")["metadata"]["uid"]
        events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        wait_for(lambda: bool(installed.client.get(events)["items"]))
        (event,) = installed.client.get(events)["items"]
        assert (event["reason"], event["regarding"]["name"], event["regarding"]["uid"]) == (REASON, "refused", uid)
        assert "it was admitted all the same: it is known today; spec.http[0]: " in event["note"]


@pytest.mark.usefixtures("cluster_is_ours")
def test_no_component_lacks_a_right_or_has_one_that_it_does_not_use(installed: Cluster, recorded_before: int) -> None:
    """By what the API server recorded of the tests above."""
    assert installed.control_plane is not None
    log = installed.control_plane.audit_log.read_text().splitlines()[recorded_before:]
    for component in ("ca", "discovery", "webhook"):
        account = f"{HOME}:heddle-{component}"
        assert denied(log, account) == frozenset(), f"{component} lacks rights"
        left = [
            right for right in unused(component, uses(log, account)) if not right.startswith(NOT_USED_HERE[component])
        ]
        assert not left, f"{component} has rights that nothing used"


def _settled(cluster: Cluster) -> bool:
    """Whether the webhook has written all that it writes when it starts: whom the API server is to trust, and that it
    does not go on without an answer."""
    registered = "/apis/admissionregistration.k8s.io/v1"
    entries = [
        entry
        for plural in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
        for raw in cluster.client.get(f"{registered}/{plural}")["items"]
        for entry in raw["webhooks"]
    ]
    trusted = all(entry["clientConfig"].get("caBundle") for entry in entries)
    return trusted and all(entry["failurePolicy"] == "Fail" for entry in entries if entry["name"] in ENFORCED)


def _create(cluster: Cluster, path: str, body: dict[str, Any]) -> None:
    """A new namespace's service account takes a moment."""
    _eventually(lambda: find(cluster.client, path.removesuffix("/pods") + "/serviceaccounts/default"))
    cluster.client.post(path, body)


def _eventually(attempt: Any) -> Any:
    ends = time.monotonic() + 120
    while not (found := attempt()):
        assert time.monotonic() < ends
        time.sleep(0.1)
    return found
