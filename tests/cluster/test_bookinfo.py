"""The whole on a cluster of two nodes: bookinfo as it stands in samples/, in a namespace that enforces pod security
`restricted`, under a mesh installed from an IstioOperator file. Two hundred requests a second, by HTTP and by TLS, and
none of them may fail, whatever is done to the pods of the app or of the control plane.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.errors import HeddleError
from tests.cluster import asked_of_bookinfo as asked
from tests.cluster.cluster import Cluster
from tests.cluster.installing import NAMESPACE as CONTROL
from tests.cluster.installing import find, heddle, uninstall
from tests.cluster.rollouts import APP, all_ready, eventually, names, pods_on, rolled_out, scale
from tests.cluster.second_node import second_node
from tests.cluster.traffic import node_names, outside
from tests.support.certificates import Authority
from tests.support.steady_load import SteadyLoad

pytestmark = pytest.mark.timeout(600)

PROJECT = Path(__file__).parents[2]
SAMPLES = PROJECT / "samples" / "bookinfo" / "manifests"
OPERATOR = Path(__file__).parent / "cases" / "bookinfo-operator.yaml"
NAME = "bookinfo.example"
RATE = 200.0
CONTROL_PLANE = ("heddle-ca", "heddle-discovery", "heddle-webhook", "heddle-node")

TLS_GATEWAY = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "tls", "namespace": APP},
    "spec": {
        "selector": {"istio": "ingressgateway"},
        "servers": [
            {
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                "hosts": [NAME],
                "tls": {"mode": "SIMPLE", "credentialName": "bookinfo-cert"},
            }
        ],
    },
}
TLS_ROUTE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "tls", "namespace": APP},
    "spec": {
        "hosts": [NAME],
        "gateways": ["tls"],
        "http": [{"route": [{"destination": {"host": "productpage", "port": {"number": 9080}}}]}],
    },
}
# Of two hundred requests a second, only those that nobody would like to see: a line for each takes its own time.
LOG_FAILURES = {
    "apiVersion": "telemetry.istio.io/v1",
    "kind": "Telemetry",
    "metadata": {"name": "log-failures", "namespace": APP},
    "spec": {"accessLogging": [{"filter": {"expression": "response.code >= 400"}}]},
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def two_nodes(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster that was there before has the nodes that it has."""
    with second_node(cluster) if cluster.node is not None else nullcontext():
        yield cluster


@pytest.fixture(scope="module")
def bookinfo(two_nodes: Cluster, authority: Authority) -> Iterator[Cluster]:
    """The mesh installed, and bookinfo running in it, over both nodes."""
    cluster = two_nodes
    installed = heddle(cluster, "install", "-y", "-f", str(OPERATOR), "--timeout=240")
    assert installed.code == 0, installed.err
    try:
        cluster.kubectl("apply", "-f", str(SAMPLES / "namespace.yaml"))
        cluster.kubectl("label", "namespace", APP, "pod-security.kubernetes.io/enforce=restricted")
        certificate = authority.issue(dns=NAME)
        pair = {"tls.crt": certificate.chain_pem, "tls.key": certificate.key_pem}
        data = {name: base64.b64encode(text.encode()).decode() for name, text in pair.items()}
        secret = {"metadata": {"name": "bookinfo-cert"}, "type": "kubernetes.io/tls", "data": data}
        cluster.client.post(f"/api/v1/namespaces/{APP}/secrets", secret)
        may_read = (f"--namespace={APP}", "gateway-secrets")
        cluster.kubectl("create", "role", *may_read, "--verb=list,watch", "--resource=secrets")
        discovery = "--serviceaccount=istio-system:heddle-discovery"
        cluster.kubectl("create", "rolebinding", *may_read, "--role=gateway-secrets", discovery)
        cluster.kubectl("apply", "-f", str(SAMPLES))
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([TLS_GATEWAY, TLS_ROUTE, LOG_FAILURES]))
        rolled_out(cluster)
        yield cluster
    finally:
        for namespace in (APP, "outside"):
            with suppress(HeddleError):
                cluster.client.call("DELETE", f"/api/v1/namespaces/{namespace}")
            # Before the namespace is looked at again, which is half of their grace later: nobody needs their drain.
            cluster.kubectl("delete", "pod", "--all", "--now", "--wait=false", f"--namespace={namespace}", check=False)
        for namespace in (APP, "outside"):
            eventually(lambda gone=namespace: find(cluster.client, f"/api/v1/namespaces/{gone}") is None, namespace)
        uninstall(cluster, "--purge")


@pytest.fixture(scope="module")
def loads(
    bookinfo: Cluster, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[SteadyLoad]]:
    """Half of the requests by HTTP, half by TLS that ends at the gateway."""
    address = bookinfo.client.get(f"/api/v1/namespaces/{APP}/services/istio-ingressgateway")["spec"]["clusterIP"]
    roots = tmp_path_factory.mktemp("tls") / "roots.pem"
    roots.write_text(authority.root_pem)
    with outside(bookinfo, "outside", roots) as start:
        made = [
            start(f"http://{address}/productpage", RATE / 2),
            start(f"https://{address}:443/productpage", RATE / 2, NAME),
        ]
        eventually(lambda: all(flows(each) for each in made), "the load")
        for each in made:
            each.take()
        yield made
        time.sleep(5)  # what was done last has its effect
        counted = [each.take() for each in made]
        for each in made:
            each.close()
        assert [each["failures"] for each in counted] == [{}, {}]


def flows(load: SteadyLoad) -> bool:
    counted = load.take()
    return counted["requests"] > 10 and not counted["failures"]


@pytest.fixture
def nothing_fails(loads: list[SteadyLoad]) -> Iterator[None]:
    """No request fails of those that were made since the last such test, whose effects may be late, and during this."""
    yield
    counted = [each.take() for each in loads]
    print(*counted, sep="\n")
    assert [each["failures"] for each in counted] == [{}, {}]
    assert all(each["requests"] > 100 for each in counted), "there was no load"


def test_every_pod_has_its_identity_and_no_pod_the_right_to_write_rules(bookinfo: Cluster) -> None:
    pods = bookinfo.client.get(f"/api/v1/namespaces/{APP}/pods")["items"]
    listed = bookinfo.client.get(f"/apis/heddle.dev/v1/namespaces/{APP}/workloadcertificates")["items"]
    accounts = {pod["metadata"]["name"]: pod["spec"]["serviceAccountName"] for pod in pods}
    identities = {entry["metadata"]["name"]: entry["spec"]["identity"] for entry in listed}
    assert identities == {name: f"spiffe://cluster.local/ns/{APP}/sa/{account}" for name, account in accounts.items()}
    for pod in pods:
        names = [container["name"] for container in pod["spec"].get("initContainers", ())]
        if "istio-ingressgateway" not in pod["metadata"]["name"]:
            assert names == ["istio-validation", "istio-proxy"]
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            assert container["securityContext"]["capabilities"].get("add") is None


def test_a_pod_outside_the_mesh_is_refused(bookinfo: Cluster) -> None:
    bookinfo.wait_pod("outside", "legacy")
    with pytest.raises(AssertionError, match=r"exit code 56|reset|Empty reply|exit code 52"):
        bookinfo.execute("outside", "legacy", "curl", "-sS", "-m", "5", f"http://details.{APP}:9080/details/0")


def test_a_certificate_is_renewed_by_command(bookinfo: Cluster) -> None:
    (pod,) = names(bookinfo, "pod", APP, "app=details")
    path = f"/apis/heddle.dev/v1/namespaces/{APP}/workloadcertificates/{pod}"
    before = bookinfo.client.get(path)["spec"]["serial"]
    done = heddle(bookinfo, "certificates", "renew", f"{APP}/{pod}")
    assert done.code == 0, done.err
    eventually(lambda: bookinfo.client.get(path)["spec"]["serial"] != before, "another certificate")


def test_requests_are_answered_as_they_are_explained(bookinfo: Cluster) -> None:
    (page,) = names(bookinfo, "pod", APP, "app=productpage")
    by_route, by_header, by_name, unknown_host, unknown_port = asked.answers_as_explained(bookinfo, page)
    assert by_route[0]["pod"].startswith("reviews-v1-")
    assert by_header[0]["pod"].startswith("reviews-v2-")
    assert by_name[1]["transport"] == "mutual TLS"
    assert (unknown_host[0]["status"], "error" in unknown_port[0]) == (502, True)
    assert {branch["outcome"]["origins"][0]["kind"] for _, branch in (unknown_host, unknown_port)} == {"ConfigMap"}
    (outside,) = asked.explained(bookinfo, "outside/legacy", f"details.{APP}:9080/details/0")["branches"]
    assert (outside["outcome"]["result"], outside["outcome"]["origins"][0]["kind"]) == ("refused", "PeerAuthentication")
    (gateway,) = names(bookinfo, "pod", APP, "istio=ingressgateway")
    (entering,) = asked.explained(bookinfo, f"{APP}/{gateway}", f"https://{NAME}/productpage")["branches"]
    assert entering["workloads"] == [f"{APP}/{page}"]


def test_what_would_change_and_what_would_be_wrong_is_told_before_it_is_applied(
    bookinfo: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "routing.yaml"
    text = (SAMPLES / "routing.yaml").read_text()
    file.write_text(text.replace("subset: v1\n          weight: 100", "subset: v3"))
    code, told = asked.told(bookinfo, "diff", "-f", str(file))
    (difference,) = told["differences"]
    assert (code, {each["part"] for each in difference["changes"]}) == (1, {"route"})
    assert {each["name"] for change in difference["changes"] for each in change["origins"]} == {"reviews"}

    file.write_text(text.replace("subset: v1\n", "subset: v9\n"))
    code, told = asked.told(bookinfo, "analyze", "-f", str(file), "--on-mesh")
    (finding,) = told["findings"]
    line = file.read_text().splitlines().index("            subset: v9") + 1
    assert (code, finding["code"], finding["file"], finding["line"]) == (1, "HDL0102", str(file), line)
    file.write_text((SAMPLES / "security.yaml").read_text())
    done = heddle(bookinfo, "analyze", "-f", str(file), "--on-mesh")
    assert (done.code, done.err) == (0, ""), "every proxy was asked what it took in plain text"

    code, whole = asked.told(bookinfo, "analyze")
    (error,) = [each for each in whole["findings"] if each["severity"] == "error"]
    assert (code, error["code"], error["object"]) == (1, "HDL0107", f"Gateway {APP}/tls")
    assert f"in namespace {CONTROL}" in error["message"], "the gateway of the installation has the same label"
    code, part = asked.told(bookinfo, "analyze", "-n", APP)
    assert part["findings"] == [each for each in whole["findings"] if f" {APP}" in each["object"]]


@pytest.mark.usefixtures("loads")
def test_what_flows_is_seen_by_the_users_own_rights(bookinfo: Cluster) -> None:
    with asked.dashboard(bookinfo) as url:
        picture = json.loads(heddle(bookinfo, "top", "-o", "json").out)
        edge = asked.picture_with(url, "istio-ingressgateway", "productpage-v1")
    assert [each for each in picture["problems"] if "cannot be read" in each] == []
    assert not any(pod["silent"] for workload in picture["workloads"] for pod in workload["pods"])
    edges = {(each["source"], each["destination"]): each for each in picture["edges"]}
    below = edges[f"{APP}/productpage-v1", f"{APP}/details-v1"]
    for each in (edge, edges[f"{APP}/istio-ingressgateway", f"{APP}/productpage-v1"], below):
        assert each["requestsPerSecond"] > 1
        assert (each["errors"], each["lock"]) == (0, "mutual")


@pytest.mark.usefixtures("nothing_fails")
def test_scaling_up_and_down(bookinfo: Cluster) -> None:
    scale(bookinfo, 3, "reviews-v1")
    scale(bookinfo, 1, "reviews-v1")


@pytest.mark.usefixtures("nothing_fails")
def test_a_rolling_restart_of_everything(bookinfo: Cluster) -> None:
    bookinfo.kubectl("rollout", "restart", "deployment", f"--namespace={APP}")
    rolled_out(bookinfo)


@pytest.mark.usefixtures("nothing_fails")
def test_an_upgrade_of_the_control_plane(bookinfo: Cluster) -> None:
    """Every component's pods are replaced, as by another version's image."""
    before = set(names(bookinfo, "pod", CONTROL))
    done = heddle(
        bookinfo, "upgrade", "-y", "-f", str(OPERATOR), "--set", "components.pilot.k8s.podAnnotations.again=1"
    )
    assert done.code == 0, done.err
    # What components.pilot does not speak of. One after the other, as the stages of an upgrade.
    for each in ("deployment/istio-ingressgateway", "daemonset/heddle-node"):
        bookinfo.kubectl("rollout", "restart", each, f"--namespace={CONTROL}")
        bookinfo.kubectl("rollout", "status", each, f"--namespace={CONTROL}", "--timeout=120s")
    eventually(lambda: not before & set(names(bookinfo, "pod", CONTROL)), "every pod is another one")


@pytest.mark.usefixtures("nothing_fails")
def test_the_loss_of_each_pod_of_the_control_plane(bookinfo: Cluster) -> None:
    for app in CONTROL_PLANE:
        for pod in names(bookinfo, "pod", CONTROL, f"app={app}"):
            bookinfo.kubectl("delete", "pod", pod, f"--namespace={CONTROL}", "--force", "--grace-period=0")
            eventually(lambda app=app: all_ready(bookinfo, app), f"{app} comes back")


@pytest.mark.usefixtures("nothing_fails")
def test_a_rotation_of_the_root_by_the_scripts_for_people(bookinfo: Cluster) -> None:
    """Held in the middle, where hardly anybody has renewed, and where everybody has."""
    old = rotation(bookinfo)["roots"][0]["fingerprint"]
    ready = script(bookinfo, "rotate-root", "--dry-run")
    assert ready.returncode == 0, ready.stdout + ready.stderr
    begun = script(bookinfo, "rotate-root", "-y", "--window=10m", "--wait=0s")
    assert begun.returncode == 3, begun.stderr
    eventually(lambda: rotation(bookinfo)["phase"] == "renew", "everyone trusts the new root")
    early = script(bookinfo, "check-trust")
    assert early.returncode == 3, early.stdout + early.stderr
    assert "leads to the root that would go: every peer would refuse it" in early.stdout
    assert "a handshake with what would be left is refused" in early.stdout
    carrier = bookinfo.client.get(f"/api/v1/namespaces/{APP}/configmaps/istio-ca-root-cert")
    assert carrier["data"]["root-cert.pem"].count("BEGIN CERTIFICATE") == 2

    assert heddle(bookinfo, "rotate", "pause").code == 0
    assert heddle(bookinfo, "rotate", "finish", "-y").code == 0
    eventually(lambda: rotation(bookinfo)["leaves"]["old"] == 0, "everyone has renewed")
    late = script(bookinfo, "check-trust")
    assert late.returncode == 0, late.stdout + late.stderr
    columns = ("get", "trustdomains", "--no-headers")
    eventually(lambda: "renew" in bookinfo.kubectl(*columns), "kubectl tells of it")

    ended = heddle(bookinfo, "rotate", "resume", "--wait=180s")
    assert ended.code == 0, ended.out + ended.err
    (root,) = rotation(bookinfo)["roots"]
    assert root["fingerprint"] != old
    exported = script(bookinfo, "export-bundle").stdout
    carrier = bookinfo.client.get(f"/api/v1/namespaces/{APP}/configmaps/istio-ca-root-cert")
    assert carrier["data"]["root-cert.pem"] == exported
    again = script(bookinfo, "rotate-root", "-y")
    assert (again.returncode, "nothing is started" in again.stderr) == (0, True)


@pytest.mark.usefixtures("nothing_fails")
def test_a_rotation_that_is_rolled_back(bookinfo: Cluster) -> None:
    old = rotation(bookinfo)["roots"][0]["fingerprint"]
    assert heddle(bookinfo, "rotate", "start", "--again", "-y", "--window=5s").code == 0
    eventually(lambda: rotation(bookinfo)["phase"] == "renew", "everyone trusts the new root")
    back = heddle(bookinfo, "rotate", "rollback", "-y", "--wait=180s")
    assert back.code == 0, back.out + back.err
    (root,) = rotation(bookinfo)["roots"]
    assert root["fingerprint"] == old


@pytest.mark.usefixtures("nothing_fails")
def test_a_drain(bookinfo: Cluster) -> None:
    """Of one of the two nodes, as before it is taken away: what ran there runs on the other one."""
    _, *others = node_names(bookinfo)
    if not others:
        pytest.skip("a drain needs another node")
    node = others[-1]
    bookinfo.kubectl("delete", "pod", "legacy", "--namespace=outside", "--now")  # or there is no drain: it is nobody's
    bookinfo.kubectl("scale", "deployment", "--all", "--replicas=2", f"--namespace={APP}")
    for name in names(bookinfo, "deployment", APP):
        labels = bookinfo.client.get(f"/apis/apps/v1/namespaces/{APP}/deployments/{name}")["spec"]["selector"]
        budget = {"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": labels}}
        bookinfo.client.post(f"/apis/policy/v1/namespaces/{APP}/poddisruptionbudgets", budget)
    rolled_out(bookinfo)
    moved = pods_on(bookinfo, node)
    assert moved >= {(APP, name) for name in ("productpage", "reviews", "ingressgateway")}
    assert moved >= {(CONTROL, name) for name in CONTROL_PLANE}

    try:
        bookinfo.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
        assert pods_on(bookinfo, node) == {(CONTROL, "heddle-node")}
        rolled_out(bookinfo)
        rolled_out(bookinfo, CONTROL)
    finally:
        bookinfo.kubectl("uncordon", node)


def script(cluster: Cluster, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROJECT / "scripts" / name), *words, f"--kubeconfig={cluster.kubeconfig}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def rotation(cluster: Cluster) -> dict[str, Any]:
    """Where it stands, as a program asks."""
    asked = heddle(cluster, "rotate", "status", "--output=json")
    assert asked.code == 0, asked.err
    found: dict[str, Any] = json.loads(asked.out)
    return found
