"""A cluster that runs pods changes nothing on the machine, and all of it is gone after SIGKILL of its owner."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.sandbox import PROJECT_ROOT
from tests.cluster import images, traces
from tests.cluster.cluster import Cluster
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("cluster_is_ours")

OWNER = """
import time
from tests.cluster import cluster, images, traces
from tests.cluster.second_node import second_node
before = traces.kernel_settings()
with cluster.running([images.pause()]) as own, second_node(own) as second:
    for node in (own.node.place.name, second.place.name):
        containers = [{"name": "pause", "image": images.PAUSE}]
        pod = {"metadata": {"name": node}, "spec": {"nodeName": node, "containers": containers}}
        own.client.post("/api/v1/namespaces/default/pods", pod)
        own.wait_pod("default", node)
    assert traces.kernel_settings() == before
    print(own.node.processes.state, second.processes.state, flush=True)
    time.sleep(600)
"""


def test_the_machine_sees_no_interface_rule_or_mount_of_a_running_cluster(cluster: Cluster) -> None:
    assert cluster.node is not None
    with cluster.namespace() as namespace:
        pod = {"metadata": {"name": "pause"}, "spec": {"containers": [{"name": "pause", "image": images.PAUSE}]}}
        cluster.client.post(f"/api/v1/namespaces/{namespace}/pods", pod)
        cluster.wait_pod(namespace, "pause")
        # What is looked for is there, on the node:
        assert traces.INTERFACE.search(cluster.node.run("ip", "-oneline", "link"))
        assert traces.RULE.search(cluster.node.run("iptables-save"))
        assert traces.MOUNT.search(cluster.node.run("cat", "/proc/self/mountinfo"))
        # And not here.
        seen = traces.interfaces_and_rules()
        assert not traces.INTERFACE.search(seen)
        assert not traces.RULE.search(seen)
        assert not traces.MOUNT.search(Path("/proc/self/mountinfo").read_text())


def test_nothing_is_left_of_two_nodes_when_their_owner_dies(cluster: Cluster) -> None:
    """`cluster` is asked for so that this is skipped where none can be started."""
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            states = [Path(path) for path in owner.stdout.readline().split()]
            for state, components in zip(states, (8, 3), strict=True):
                assert len(traces.processes_of(state.name)) >= components
                assert traces.cgroups_of(state.name)
            owner.send_signal(signal.SIGKILL)
            owner.wait()
        finally:
            owner.kill()
    for state in states:
        wait_for(lambda at=state: not traces.processes_of(at.name) and not list(at.parent.glob(f"{at.name}*")))
        assert not traces.cgroups_of(state.name)
