"""Pods reach each other directly, by service address and by name; nothing else is there to be reached."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.local.scene import Scene, in_sandbox, server

pytestmark = pytest.mark.root


@in_sandbox
def test_twelve_pods_start_together_and_each_has_its_own_address(scene: Scene) -> None:
    names = [f"web-{number}" for number in range(12)]
    for name in names:
        scene.run(name, server())
    addresses = {scene.until_ready(name)["podIP"] for name in names}
    assert len(addresses) == 12
    assert all(address.startswith("10.244.") for address in addresses)


@in_sandbox
def test_pods_reach_each_other_directly_by_cluster_ip_and_by_name(scene: Scene) -> None:
    scene.run("a", server())
    scene.run("b", server())
    a, b = scene.until_ready("a")["podIP"], scene.until_ready("b")["podIP"]
    scene.serve({"shop-b": ("10.96.0.50", ["b"])})
    for target in (f"{b}:8000", "10.96.0.50", "shop-b", "shop-b.shop", "shop-b.shop.svc.cluster.local"):
        code, output = scene.shell("a", f"curl -sS --max-time 5 http://{target}/")
        assert (code, output) == (0, f"b {a}\n"), target


@in_sandbox
def test_a_service_spreads_over_its_pods_also_for_one_of_them_and_for_the_node(scene: Scene) -> None:
    for name in ("a", "b"):
        scene.run(name, server())
        scene.until_ready(name)
    scene.serve({"both": ("10.96.0.50", ["a", "b"])})
    _, output = scene.shell("a", "for n in $(seq 40); do curl -sS --max-time 5 http://both/; done")
    callers = {tuple(line.split()) for line in output.splitlines()}
    # A pod that reaches itself through its service sees the node's address; others see the pod's.
    assert callers == {("a", "10.244.0.1"), ("b", scene.statuses["a"]["podIP"])}
    node = subprocess.run(["curl", "-sS", "--max-time", "5", "http://10.96.0.50/"], capture_output=True, text=True)
    assert node.stdout.split()[1] == "10.244.0.1"


@in_sandbox
def test_what_is_not_there_is_refused_at_once(scene: Scene) -> None:
    scene.run("a", server())
    scene.until_ready("a")
    scene.serve({"empty": ("10.96.0.51", [])})
    # curl: 7 is "refused or unreachable", 28 would be a time-out, 6 an unknown name.
    expected = {
        "http://empty/": 7,
        "http://10.96.0.99/": 7,
        "http://10.244.77.7/": 7,
        "http://192.0.2.1/": 7,
        "http://nobody/": 6,
        "http://www.example.com/": 6,
    }
    for url, code in expected.items():
        assert scene.shell("a", f"curl -sS --max-time 5 {url}")[0] == code, url
    for url in ("http://10.96.0.51/", "http://10.96.0.99/"):
        assert subprocess.run(["curl", "-sS", "--max-time", "5", url], capture_output=True).returncode == 7


@in_sandbox
def test_endpoints_that_change_are_followed(scene: Scene) -> None:
    for name in ("a", "b"):
        scene.run(name, server())
        scene.until_ready(name)
    scene.serve({"one": ("10.96.0.50", ["a"])})
    assert scene.shell("b", "curl -sS --max-time 5 http://one/")[1].startswith("a ")
    scene.serve({"one": ("10.96.0.50", ["b"])})
    assert scene.shell("a", "curl -sS --max-time 5 http://one/")[1].startswith("b ")


@in_sandbox
def test_a_pod_sees_its_own_names_and_the_clusters_resolver(scene: Scene) -> None:
    scene.run("a", server(), hostAliases=[{"ip": "192.0.2.7", "hostnames": ["printer"]}])
    address = scene.until_ready("a")["podIP"]
    _, output = scene.shell("a", "hostname; cat /etc/hostname /etc/resolv.conf; getent hosts a printer localhost")
    lines = output.splitlines()
    assert lines[:2] == ["a", "a"]
    assert "nameserver 10.96.0.10" in lines
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local" in lines
    assert [line.split() for line in lines[-3:-1]] == [[address, "a"], ["192.0.2.7", "printer"]]


@in_sandbox
def test_host_network_is_the_nodes(scene: Scene) -> None:
    scene.run("a", server(), hostNetwork=True)
    assert scene.until_ready("a")["podIP"] == "10.244.0.1"
    assert subprocess.run(["curl", "-sS", "http://127.0.0.1:8000/"], capture_output=True).returncode == 0


@in_sandbox
def test_a_stopped_pod_leaves_no_interface_namespace_or_process(scene: Scene) -> None:
    scene.run("a", server())
    scene.until_ready("a")
    scene.kubelet.stop("shop", "a").result(timeout=60)
    assert os.listdir("/run/netns") == []
    # The kernel removes a namespace's interfaces a moment after the namespace has gone.
    for _ in range(200):
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout.splitlines()
        if len(links) == 1:
            break
        subprocess.run(["sleep", "0.02"])
    assert len(links) == 1
    own = os.getpid()
    children = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]
    alive = [pid for pid in children if os.path.exists(f"/proc/{pid}/exe")]
    assert alive == []
    assert not os.path.exists("/run/heddle/pods/uid-a")
