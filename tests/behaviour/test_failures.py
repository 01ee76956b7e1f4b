"""Processes that are killed, on either side: what comes back by itself, and that nothing is left of a killed mesh."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.behaviour.world import HERE, World, echo, eventually, thing
from tests.support.local_mesh import local_mesh
from tests.support.mesh_processes import descendants, sidecar

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Put = Callable[..., Any]
OWN = {"app": "own"}
SERVICE = thing("Service", "own", {"selector": OWN, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})


def agent(world: World, pod: str, *words: str) -> Any:
    return json.loads(world.agent(pod, *words))


def restarts(world: World, pod: str) -> int:
    return int(world.pods("mesh", pod)[0]["restarts"])


def answers(world: World) -> bool:
    return all(answer.get("status") == 200 for answer in world.many("http://own/", 5))


def test_a_killed_agent_is_started_again_with_its_envoy(world: World, case: Put) -> None:
    case(SERVICE, echo("own", OWN))
    killed, envoy = sidecar(world.mesh.process.pid, "own")
    killed.kill()
    eventually(lambda: restarts(world, "own") == 1, "the container is not restarted")
    eventually(lambda: not envoy.alive, "an Envoy without its agent goes on")
    world.settle()
    eventually(lambda: answers(world), "own does not answer")
    assert "x-forwarded-client-cert" in world.get("http://own/")["body"]["headers"]
    assert world.get("http://echo/", "mesh/own")["status"] == 200


def test_a_killed_envoy_is_started_again_by_its_agent(world: World, case: Put) -> None:
    case(SERVICE, echo("own", OWN))
    before = agent(world, "mesh/own", "status")["envoy"]
    sidecar(world.mesh.process.pid, "own")[1].kill()
    eventually(
        lambda: agent(world, "mesh/own", "status")["envoy"]["restarts"] == before["restarts"] + 1, "no new Envoy"
    )
    eventually(lambda: answers(world), "own does not answer")
    assert restarts(world, "own") == 0
    world.settle()


def test_a_killed_app_is_started_again_and_gets_requests_when_it_is_ready(world: World, case: Put) -> None:
    case(SERVICE, echo("own", OWN))
    app = [p for p in descendants(world.mesh.process.pid) if "VERSION=own" in p.environment and "echo.py" in p.command]
    app[0].kill()
    eventually(lambda: restarts(world, "own") == 1, "the app is not restarted")
    world.settle()
    eventually(lambda: answers(world), "own does not answer")


def applied(world: World, pod: str) -> set[tuple[str, str, str]]:
    """What the pod's Envoy runs: type, name and when it got it."""
    found = set()
    for part in agent(world, pod, "admin", "GET", "/config_dump")["configs"]:
        for kind, items in part.items():
            for item in items if isinstance(items, list) and kind.startswith("dynamic_") else ():
                config = item.get("active_state") or item
                name = next((one["name"] for one in config.values() if isinstance(one, dict) and "name" in one), "")
                found.add((kind, item.get("name", name), config["last_updated"]))
    return found


def test_a_restart_of_discovery_sends_nothing_again(world: World) -> None:
    before = {pod: applied(world, pod) for pod in ("mesh/client", "mesh/echo-v1")}
    assert {kind for kind, _, _ in before["mesh/client"]} >= {"dynamic_listeners", "dynamic_active_clusters"}
    world.mesh.run("local", "control-plane", "kill", "discovery")
    try:
        assert not world.mesh.json("status")["ready"]
        assert {answer["status"] for answer in world.many("http://echo/", 10)} == {200}
    finally:
        world.mesh.run("local", "control-plane", "start", "discovery")
    status = world.settle()
    assert {proxy["pod"] for proxy in status["proxies"]} >= {"client", "lines"}
    assert {pod: applied(world, pod) for pod in before} == before


def test_a_change_made_while_discovery_is_down_is_applied_afterwards(world: World, case: Put) -> None:
    routes = thing("VirtualService", "case", {"hosts": ["echo"], "http": [{"directResponse": {"status": 299}}]})
    world.mesh.run("local", "control-plane", "kill", "discovery")
    try:
        world.mesh.write("case.yaml", json.dumps(routes))
        eventually(lambda: world.objects("VirtualService"), "the change is not read")
        with world.explained.outside("discovery is down"):
            assert world.get("http://echo/")["status"] == 200
    finally:
        world.mesh.run("local", "control-plane", "start", "discovery")
    eventually(lambda: world.get("http://echo/").get("status") == 299, "the change is not applied")
    case(routes)


def test_pods_made_while_the_webhook_is_down_come_with_their_sidecar(world: World, case: Put) -> None:
    world.mesh.run("local", "control-plane", "kill", "webhook")
    try:
        case(SERVICE, echo("own", OWN), settle=False)
        assert not [pod for pod in world.pods("mesh", "own") if pod["ready"] == "1/1"]
        assert "webhook" in json.dumps(world.engine.get("/status")["problems"])
    finally:
        world.mesh.run("local", "control-plane", "start", "webhook")
    eventually(lambda: [pod["ready"] for pod in world.pods("mesh", "own")] == ["2/2"], "the pod does not come")
    world.settle()
    eventually(lambda: answers(world), "own does not answer")


def test_new_pods_wait_for_a_ca_that_is_down(world: World, case: Put) -> None:
    world.mesh.run("local", "control-plane", "kill", "ca")
    try:
        case(SERVICE, echo("own", OWN), settle=False)
        eventually(lambda: world.pods("mesh", "own"), "the pod is not made")
        assert {answer["status"] for answer in world.many("http://echo/", 10)} == {200}
        assert world.pods("mesh", "own")[0]["ready"] == "0/2"
    finally:
        world.mesh.run("local", "control-plane", "start", "ca")
    eventually(lambda: world.pods("mesh", "own")[0]["ready"] == "2/2", "the pod does not come")
    world.settle()
    eventually(lambda: answers(world), "own does not answer")


def test_nothing_is_left_of_a_mesh_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    world = [*yaml.safe_load_all((HERE / "manifests" / "world.yaml").read_text())]
    small = [document for document in world if document["kind"] in ("Namespace", "ServiceAccount")]
    (tmp_path / "manifests" / "small.yaml").write_text(yaml.safe_dump_all([*small, SERVICE, echo("own", OWN)]))
    with local_mesh(tmp_path, tmp_path / "manifests", HERE / "images.yaml") as mesh:
        below = descendants(mesh.process.pid)
        assert len(below) > 8
        own = os.readlink("/proc/self/ns/net")
        namespaces = {os.readlink(f"/proc/{process.pid}/ns/net") for process in below if process.alive} - {own}
        interfaces = set(os.listdir("/sys/class/net"))
        mesh.process.kill()
        mesh.process.wait()
        eventually(lambda: not any(process.alive for process in below), "processes go on")
        assert not namespaces & {at for pid in os.listdir("/proc") if pid.isdigit() for at in network_of(pid)}
        assert set(os.listdir("/sys/class/net")) <= interfaces
    # The next one has nothing of it: it may be of another trust domain.
    other = thing("ConfigMap", "istio", namespace="istio-system", data={"mesh": "trustDomain: west.example"})
    (tmp_path / "manifests" / "settings.yaml").write_text(yaml.safe_dump(other))
    with local_mesh(tmp_path, tmp_path / "manifests", HERE / "images.yaml") as again:
        assert again.settle()["ready"]
        issued = again.json("certificates")["certificates"]
        assert "spiffe://west.example/ns/mesh/sa/echo" in {each["identity"] for each in issued}
        assert {each["identity"].split("/")[2] for each in issued} == {"west.example"}


def network_of(pid: str) -> set[str]:
    try:
        return {os.readlink(f"/proc/{pid}/ns/net")}
    except OSError:
        return set()
