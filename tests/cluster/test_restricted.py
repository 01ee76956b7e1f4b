"""Real pods in a namespace that enforces pod security `restricted`: admitted, and started only with their rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from kube.client import Refused
from local.sandbox import PROJECT_ROOT
from mesh.errors import NotFound
from tests.cluster.cluster import Cluster
from tests.cluster.gated import LABELS, app_pod, ask_script, gated_pod, injected
from tests.cluster.node import Node
from tests.cluster.processes import ComponentFailed
from tests.cluster.rights import denied, unused, uses
from webhook.config import InjectionConfig

CONTROL = "istio-system"
NODE_AGENT = ("daemonset/heddle-node", f"--namespace={CONTROL}")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace(LABELS, "restricted") as name:
        yield name


@pytest.fixture(scope="module")
def control_namespace(cluster: Cluster) -> Iterator[None]:
    """Where the DaemonSet goes, if a test wants it."""
    try:
        cluster.client.post("/api/v1/namespaces", {"metadata": {"name": CONTROL}})
        made = True
    except Refused:  # another test's
        made = False
    yield
    if made:
        cluster.client.call("DELETE", f"/api/v1/namespaces/{CONTROL}")
        wait(lambda: not exists(cluster, f"/api/v1/namespaces/{CONTROL}"), "the namespace goes")


@pytest.fixture
def node_agent(cluster: Cluster, control_namespace: None) -> Iterator[Callable[[], None]]:
    """Call it to install the DaemonSet from manifests/; gone at the end."""
    folder = str(PROJECT_ROOT / "manifests" / "node")

    def install() -> None:
        cluster.kubectl("apply", "-k", folder)

    yield install
    cluster.kubectl("delete", "-k", folder, "--ignore-not-found")
    wait(lambda: "heddle-node" not in cluster.kubectl("get", "pods", f"--namespace={CONTROL}"), "the agent goes")


def wait(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.2)


def exists(cluster: Cluster, path: str) -> bool:
    try:
        cluster.client.get(path)
    except NotFound:
        return False
    return True


def get(cluster: Cluster, namespace: str, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.client.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
    return found


def gate_state(cluster: Cluster, namespace: str, pod: str) -> dict[str, Any]:
    statuses = get(cluster, namespace, pod)["status"].get("initContainerStatuses") or [{}]
    state: dict[str, Any] = statuses[0].get("state") or {}
    return state


def create(cluster: Cluster, pod: dict[str, Any], query: dict[str, str] | None = None) -> None:
    cluster.client.call("POST", f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods", body=pod, query=query)


def log(cluster: Cluster, namespace: str, pod: str, container: str) -> str:
    return cluster.kubectl("logs", f"--namespace={namespace}", pod, f"--container={container}", check=False)


def first_connection(cluster: Cluster, namespace: str, pod: str) -> str:
    """Who answered the app's first connection."""
    wait(lambda: "first connection:" in log(cluster, namespace, pod, "app"), "the app has connected")
    return log(cluster, namespace, pod, "app").partition(":")[2].strip()


def test_the_injected_pod_is_admitted(cluster: Cluster, namespace: str) -> None:
    dry = {"dryRun": "All"}
    create(cluster, injected(app_pod("web", namespace)), dry)
    with pytest.raises(Refused, match=r'violates PodSecurity "restricted.*istio-init'):
        create(cluster, injected(app_pod("web", namespace), InjectionConfig(node_agent=False)), dry)


def test_it_waits_for_the_node_agent_and_then_starts(
    cluster: Cluster, namespace: str, node_agent: Callable[[], None]
) -> None:
    create(cluster, gated_pod("early", namespace))
    wait(lambda: "running" in gate_state(cluster, namespace, "early"), "the gate runs")
    wait(lambda: "waiting for heddle-node" in log(cluster, namespace, "early", "istio-validation"), "the gate says it")
    assert get(cluster, namespace, "early")["status"]["phase"] == "Pending"

    node_agent()
    pod = cluster.wait_pod(namespace, "early")
    assert "go through the proxy: IPv4" in log(cluster, namespace, "early", "istio-validation")
    assert first_connection(cluster, namespace, "early") == "outbound"
    cluster.kubectl("rollout", "status", *NODE_AGENT, "--timeout=60s")

    create(cluster, gated_pod("late", namespace))
    cluster.wait_pod(namespace, "late")
    ask = ask_script(pod["status"]["podIP"], 8080)
    assert cluster.execute(namespace, "late", *ask, container="app").strip() == "outbound"
    # From the node, as kubelet does, past the rules of any client.
    if cluster.node is not None:
        assert cluster.node.run(*ask).strip() == "inbound"


def test_options_of_the_pod(cluster: Cluster, namespace: str, node_agent: Callable[[], None]) -> None:
    node_agent()
    annotations = {"traffic.sidecar.istio.io/excludeInboundPorts": "8080"}
    create(cluster, gated_pod("open", namespace, annotations=annotations))
    address = cluster.wait_pod(namespace, "open")["status"]["podIP"]
    if cluster.node is not None:
        assert cluster.node.run(*ask_script(address, 8080)).strip() == "app"
        assert cluster.node.run(*ask_script(address, 8081)).strip() == "inbound"


def test_an_agent_that_is_replaced_under_load(cluster: Cluster, namespace: str, node_agent: Callable[[], None]) -> None:
    """Pods are created while the DaemonSet's pod is killed again and again: all start, none without its rules."""
    node_agent()
    names = [f"app-{number}" for number in range(16)]
    for number, name in enumerate(names):
        create(cluster, gated_pod(name, namespace))
        if number % 5 == 2:
            everything = ("pods", f"--namespace={CONTROL}", "--selector=app=heddle-node")
            cluster.kubectl("delete", *everything, "--grace-period=0", "--force", "--wait=false")
        elif number == 9:
            cluster.kubectl("rollout", "restart", *NODE_AGENT)
    for name in names:
        cluster.wait_pod(namespace, name, seconds=120)
        assert first_connection(cluster, namespace, name) == "outbound"
        assert get(cluster, namespace, name)["status"]["initContainerStatuses"][0]["restartCount"] == 0


@pytest.mark.usefixtures("cluster_is_ours")
def test_a_new_sandbox_gets_its_rules_too(cluster: Cluster, namespace: str, node_agent: Callable[[], None]) -> None:
    """When a pod's sandbox dies, kubelet makes another, with a network namespace without rules; the gate runs again."""
    assert cluster.node is not None
    node_agent()
    pod = gated_pod("again", namespace)
    pod["spec"]["restartPolicy"] = "Always"
    create(cluster, pod)
    cluster.wait_pod(namespace, "again")
    labels = f'labels."io.kubernetes.pod.namespace"=={namespace},labels."io.cri-containerd.kind"==sandbox'
    (sandbox,) = cluster.node.run("ctr", "--namespace=k8s.io", "containers", "list", "--quiet", labels).split()
    cluster.node.run("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", sandbox)

    def restarted() -> bool:
        status = get(cluster, namespace, "again")["status"]
        apps = status.get("containerStatuses") or [{}]
        return bool(apps[0].get("restartCount", 0) and apps[0].get("ready"))

    wait(restarted, "the app runs again", 90)
    assert first_connection(cluster, namespace, "again") == "outbound"


def network_namespace(node: Node, address: str) -> str:
    """The option by which nsenter enters the network namespace of the pod with that address."""
    for name in node.run("sh", "-c", "ls -t /run/netns").split():
        option = f"--net=/run/netns/{name}"
        with suppress(ComponentFailed):  # of a pod that has ended meanwhile
            if f" {address}/" in node.run("nsenter", option, "ip", "-4", "address"):
                return option
    raise AssertionError(f"no network namespace has {address}")


@pytest.mark.usefixtures("cluster_is_ours")
def test_an_event_says_why_a_pod_does_not_start(
    cluster: Cluster, namespace: str, node_agent: Callable[[], None]
) -> None:
    """Rules of something else are in the pod's namespace already: a failure that only the node can bring about."""
    assert cluster.node is not None
    create(cluster, gated_pod("stuck", namespace))
    wait(lambda: "running" in gate_state(cluster, namespace, "stuck"), "the gate runs")
    address = [""]

    def has_address() -> bool:
        address[0] = get(cluster, namespace, "stuck")["status"].get("podIP", "")
        return bool(address[0])

    wait(has_address, "the pod has an address")
    netns = network_namespace(cluster.node, address[0])
    cluster.node.run("nsenter", netns, "iptables", "-t", "nat", "-N", "ISTIO_OUTPUT")
    node_agent()

    def events() -> list[dict[str, Any]]:
        items = cluster.client.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        return [item for item in items if item["reason"] == "InterceptionFailed"]

    wait(lambda: bool(events()), "an event")
    event = events()[0]
    assert event["regarding"]["name"] == "stuck"
    assert event["type"] == "Warning"
    assert event["reportingController"] == "heddle.dev/node"
    assert "iptables has other interception rules here already" in event["note"]
    assert "InterceptionFailed" in cluster.kubectl("describe", "pod", "stuck", f"--namespace={namespace}")
    assert "heddle-node says: iptables has other" in log(cluster, namespace, "stuck", "istio-validation")
    assert "running" in gate_state(cluster, namespace, "stuck")

    # All that the agent does at the API server it has done by now.
    assert cluster.control_plane is not None
    audit = cluster.control_plane.audit_log.read_text().splitlines()
    account = f"{CONTROL}:heddle-node"
    assert denied(audit, account) == frozenset()
    assert unused("node", uses(audit, account)) == []
