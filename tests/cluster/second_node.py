"""A second node for a test cluster: a network namespace, a containerd, a kubelet and a kube-proxy of its own.

A cable (veth) leads from the network namespace of the first node to that of the second; neither can be seen from this
machine's own. Each node knows by which end the other's address and pods are reached.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mesh.errors import NotFound
from tests.cluster import missing
from tests.cluster.cluster import Cluster
from tests.cluster.node import SECOND, Node
from tests.cluster.processes import Processes


@contextmanager
def second_node(cluster: Cluster) -> Iterator[Node]:
    """The node, ready for pods, with the images that the first one started with; gone at the end, as its pods are."""
    first, control_plane = cluster.node, cluster.control_plane
    assert first is not None, "nodes join clusters that are ours"
    assert control_plane is not None
    processes = Processes(isolate=True)
    try:
        second = Node(processes, SECOND)
        second.start_network()
        _connect(first, second)
        second.start_containerd(images_of=first)
        second.join(control_plane, cluster.client)
        yield second
    finally:
        processes.close()
        with suppress(NotFound):
            cluster.client.delete(f"/api/v1/nodes/{SECOND.name}")


def _connect(first: Node, second: Node) -> None:
    """The cable, of which each end is named after the node that it leads to; it goes when either node does."""
    to_second, to_first = "second", "first"
    # In no other namespace of the first node: there, the second one's process has no number.
    enter = [missing.program("nsenter", "util-linux"), f"--target={first.processes.pid}", "--net", "--"]
    pair = ["type", "veth", "peer", "name", to_first, "netns", str(second.processes.pid)]
    subprocess.run([*enter, missing.program("ip", "iproute2"), "link", "add", to_second, *pair], check=True)
    for here, device, there in ((first, to_second, second), (second, to_first, first)):
        here.run("ip", "link", "set", device, "up")
        here.run("ip", "route", "add", f"{there.place.address}/32", "dev", device, "src", here.place.address)
        here.run("ip", "route", "add", there.place.pods, "via", there.place.address, "dev", device)
