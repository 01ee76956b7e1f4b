"""What the injection means for a running pod: what bypasses the proxy, probes, order of start, volumes and identity."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.behaviour.world import ASK, CALLER, Answer, World, echo, eventually, thing

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Put = Callable[..., Any]
STRICT = thing("PeerAuthentication", "case", {"mtls": {"mode": "STRICT"}})
OWN = {"app": "own"}
SERVICE = thing("Service", "own", {"selector": OWN, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
TRAFFIC = "traffic.sidecar.istio.io/"
XFCC = "x-forwarded-client-cert"


def address(world: World, name: str = "own") -> str:
    return str(world.pods("mesh", name)[0]["ip"])


def reaches(world: World, url: str, pod: str = CALLER) -> bool:
    return world.get(url, pod).get("status") == 200


@pytest.mark.parametrize(
    ("annotation", "web", "other"),
    [
        pytest.param({}, False, False, id="all is intercepted"),
        pytest.param({TRAFFIC + "excludeInboundPorts": "8081"}, False, True, id="a port excluded"),
        pytest.param({TRAFFIC + "includeInboundPorts": "8080"}, False, True, id="one port included"),
        pytest.param({TRAFFIC + "includeInboundPorts": ""}, True, True, id="no port included"),
        pytest.param({TRAFFIC + "includeInboundPorts": "*"}, False, False, id="every port included"),
    ],
)
def test_inbound_ports_that_bypass_the_proxy(
    world: World, case: Put, annotation: Answer, web: bool, other: bool
) -> None:
    """Under STRICT what is in plain text arrives only where the proxy is not asked."""
    case(STRICT, SERVICE, echo("own", OWN, annotations=annotation))
    ip = address(world)
    assert reaches(world, f"http://{ip}:8080/") == web
    assert reaches(world, f"http://{ip}:8081/") == other


@pytest.mark.parametrize(
    ("annotation", "through_proxy"),
    [
        pytest.param(lambda _: {}, True, id="all is intercepted"),
        pytest.param(lambda _: {TRAFFIC + "excludeOutboundPorts": "80"}, False, id="a port excluded"),
        pytest.param(lambda ip: {TRAFFIC + "excludeOutboundIPRanges": f"{ip}/32"}, False, id="a range excluded"),
        pytest.param(lambda _: {TRAFFIC + "includeOutboundIPRanges": "192.0.2.0/24"}, False, id="another included"),
        pytest.param(lambda _: {TRAFFIC + "includeOutboundIPRanges": ""}, False, id="no range included"),
        pytest.param(
            lambda _: {TRAFFIC + "includeOutboundIPRanges": "", TRAFFIC + "includeOutboundPorts": "80"},
            True,
            id="a port included",
        ),
    ],
)
def test_outbound_connections_that_bypass_the_proxy(
    world: World, case: Put, annotation: Callable[[str], Answer], through_proxy: bool
) -> None:
    services = {raw["metadata"]["name"]: raw for raw in world.objects("Service")}
    case(echo("own", OWN, annotations=annotation(services["echo"]["spec"]["clusterIP"])))
    answer = world.get("http://echo/", "mesh/own")
    assert answer["status"] == 200
    assert (XFCC in answer["body"]["headers"]) == through_proxy


def test_a_proxy_that_is_an_ordinary_container(world: World, case: Put) -> None:
    case(STRICT, SERVICE, echo("own", OWN, annotations={"sidecar.istio.io/nativeSidecar": "false"}))
    pod = next(raw for raw in world.objects("Pod") if raw["metadata"]["name"] == "own")
    assert {c["name"] for c in pod["spec"]["containers"]} == {"echo", "istio-proxy"}
    eventually(lambda: reaches(world, "http://own/", "mesh/client"), "own does not answer")
    assert XFCC in world.get("http://own/")["body"]["headers"]
    assert not reaches(world, "http://own.mesh/")
    assert XFCC in world.get("http://echo/", "mesh/own")["body"]["headers"]


def test_a_pod_that_declines_stays_out_of_the_mesh(world: World, case: Put) -> None:
    pod = echo("own", {**OWN, "sidecar.istio.io/inject": "false"})
    case(SERVICE, pod)
    raw = next(raw for raw in world.objects("Pod") if raw["metadata"]["name"] == "own")
    assert [c["name"] for c in raw["spec"]["containers"]] == ["echo"]
    assert not raw["spec"].get("initContainers")
    eventually(lambda: reaches(world, "http://own/", "mesh/client"), "own does not answer")
    assert XFCC not in world.get("http://own/")["body"]["headers"]


@pytest.mark.parametrize(
    "probe",
    [
        pytest.param({"httpGet": {"path": "/health", "port": "web"}}, id="http"),
        pytest.param({"tcpSocket": {"port": 8080}}, id="tcp"),
        pytest.param({"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}}, id="exec"),
    ],
)
def test_probes_reach_the_app_under_strict(world: World, case: Put, probe: Answer) -> None:
    container = {"readinessProbe": {**probe, "periodSeconds": 1}, "livenessProbe": {**probe, "periodSeconds": 1}}
    case(STRICT, SERVICE, echo("own", OWN, container=container))
    assert world.pods("mesh", "own")[0]["ready"] == "2/2"


@pytest.mark.parametrize(
    "probe", [{"tcpSocket": {"port": 8099}}, {"httpGet": {"path": "/none", "port": 8099}}], ids=str
)
def test_a_probe_that_fails_asks_the_app_not_the_proxy(world: World, case: Put, probe: Answer) -> None:
    """The proxy would take any connection: nobody would notice that the app does not listen."""
    container = {"livenessProbe": {**probe, "periodSeconds": 1, "failureThreshold": 1}}
    # It may be told to end before it can hear it.
    case(echo("own", OWN, container=container, terminationGracePeriodSeconds=1), settle=False)
    eventually(lambda: sum(pod["restarts"] for pod in world.pods("mesh", "own")) >= 1, "the app is not restarted")


def test_no_request_goes_to_a_pod_that_is_not_ready(world: World, case: Put) -> None:
    case(SERVICE, echo("own", OWN), echo("own-second", OWN))
    both = {"own", "own-second"}
    eventually(lambda: answered(world) == both, "not both pods answer")
    world.inside("mesh/own-second", "touch", "/tmp/sick")
    eventually(lambda: answered(world) == {"own"}, "a pod that is not ready still gets requests")
    assert "1/2" in {pod["ready"] for pod in world.pods("mesh", "own-second")}
    world.inside("mesh/own-second", "rm", "/tmp/sick")
    eventually(lambda: answered(world) == both, "the pod does not come back")


def answered(world: World) -> set[str]:
    """Who answers; no request may fail."""
    answers = world.many("http://own/", 20)
    assert {answer.get("status") for answer in answers} == {200}, answers
    return {answer["body"]["pod"] for answer in answers}


def job(command: list[str], **spec: Any) -> Answer:
    container = {"name": "work", "image": "test/idle:1", "command": command}
    template = {"metadata": {"labels": {"job": "yes"}}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    template["spec"].update(spec)
    return thing("Job", "work", {"template": template, "backoffLimit": 0})


def test_the_first_line_of_an_app_can_call_and_a_job_completes(world: World, case: Put) -> None:
    """The proxy is ready before the app begins, and ends after it."""
    line = f"""import json, urllib.request as u
print(json.load(u.urlopen('http://echo/'))['headers']['{XFCC}'])"""
    case(job([sys.executable, "-c", line]))
    pod = eventually(lambda: [p for p in world.pods("mesh", "work") if p["status"] == "Succeeded"], "it does not end")
    said = world.mesh.run("local", "logs", "-n", "mesh", pod[0]["name"]).stdout
    assert "URI=spiffe://cluster.local/ns/mesh/sa/default" in said


def test_the_apps_metrics_are_scraped_through_the_agent_under_strict(world: World, case: Put) -> None:
    annotations = {"prometheus.io/port": "8080", "prometheus.io/path": "/metrics-of-the-app"}
    case(STRICT, SERVICE, echo("own", OWN, annotations=annotations))
    url = f"http://{address(world)}:15020/stats/prometheus"
    read = f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"
    said = world.inside("mesh/client", sys.executable, "-c", read)
    assert "heddle_agent_discovery_connected 1" in said
    assert "envoy_server_live" in said
    assert "/metrics-of-the-app" in said[-2000:]  # it answers whatever it is asked with what it was asked


def test_an_app_that_may_not_be_root(world: World, case: Put) -> None:
    container = {"securityContext": {"runAsUser": 1234, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}}
    case(SERVICE, echo("own", OWN, container=container))
    eventually(lambda: reaches(world, "http://own/", "mesh/client"), "own does not answer")
    assert world.inside("mesh/own", "id", "-u").strip() == "1234"


def test_the_pods_own_settings_of_the_proxy(world: World, case: Put) -> None:
    case(echo("own", OWN, annotations={"proxy.istio.io/config": "concurrency: 1"}))
    options = json.loads(world.agent("mesh/own", "admin", "GET", "/server_info"))["command_line_options"]
    assert options["concurrency"] == 1


def test_volumes_and_environment(world: World, case: Put) -> None:
    def settings(value: str) -> Answer:
        return thing("ConfigMap", "settings", data={"colour": value})

    def hidden(value: str) -> Answer:
        return thing("Secret", "hidden", stringData={"word": value})

    field = {"fieldRef": {"fieldPath": "metadata.labels"}}
    token = {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 3600}}
    sources = [{"configMap": {"name": "settings"}}, {"secret": {"name": "hidden"}}, token]
    sources.append({"downwardAPI": {"items": [{"path": "labels", **field}]}})
    volumes = [{"name": "all", "projected": {"sources": sources}}, {"name": "scratch", "emptyDir": {}}]
    mounts = [{"name": "all", "mountPath": "/all"}, {"name": "scratch", "mountPath": "/scratch"}]
    env = [
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "MY_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
    ]
    pod = echo("own", OWN, container={"volumeMounts": mounts, "env": env}, volumes=volumes)
    case(settings("red"), hidden("one"), pod)

    def inside(*argv: str) -> str:
        return world.inside("mesh/own", *argv).strip()

    assert inside("sh", "-c", "echo $ME $MY_IP $COLOUR $WORD") == f"own {address(world)} red one"
    assert (inside("cat", "/all/colour"), inside("cat", "/all/word")) == ("red", "one")
    assert inside("cat", "/all/token").count(".") == 2
    assert 'app="own"' in inside("cat", "/all/labels")
    inside("sh", "-c", "echo kept > /scratch/file")
    case(settings("blue"), hidden("two"), pod)
    eventually(lambda: inside("cat", "/all/colour") == "blue", "the ConfigMap is not updated")
    eventually(lambda: inside("cat", "/all/word") == "two", "the Secret is not updated")
    assert inside("cat", "/scratch/file") == "kept"
    assert world.pods("mesh", "own")[0]["restarts"] == 0


def test_the_client_runs_in_the_pod(world: World) -> None:
    """`heddle local exec` passes standard input on: what all other tests of this folder rest on."""
    done = world.inside("mesh/client", sys.executable, "-c", f"print(open('{ASK}').readline())")
    assert "client" in done
