"""A whole cluster: the API server, and a node that runs pods."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kube.client import connect
from tests.cluster import builds, images, missing, namespaces, node
from tests.cluster.api_server import ApiServer
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node
from tests.cluster.processes import Processes


class Cluster(ApiServer):
    """`node` is None where the cluster is not ours."""

    def __init__(self, kubeconfig: Path, control_plane: ControlPlane | None = None, node: Node | None = None) -> None:
        super().__init__(kubeconfig, control_plane)
        self.node = node

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints; an AssertionError with what it complained about when it fails and `check`."""
        if self.control_plane is None:
            command = [missing.program("kubectl", "kubernetes-client")]
        else:
            command = [str(builds.built(builds.KUBERNETES) / "kubernetes"), "kubectl"]
        done = subprocess.run(
            [*command, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    def execute(self, namespace: str, pod: str, *argv: str, container: str = "") -> str:
        """What a command in a pod prints."""
        chosen = [f"--container={container}"] if container else []
        return self.kubectl("exec", f"--namespace={namespace}", pod, *chosen, "--", *argv)

    def wait_pod(self, namespace: str, pod: str, condition: str = "Ready", seconds: int = 90) -> dict[str, Any]:
        """The pod, once the condition holds; an AssertionError that says how it stands if it does not."""
        arguments = [f"--namespace={namespace}", f"pod/{pod}"]
        try:
            self.kubectl("wait", f"--for=condition={condition}", f"--timeout={seconds}s", *arguments)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.kubectl('describe', *arguments, check=False)}") from None
        found: dict[str, Any] = self.client.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
        return found


def requirements() -> None:
    """Everything that takes long is made or found; Missing where there can be no node."""
    if os.geteuid() != 0:
        raise missing.Missing("a node runs containers, which needs root")
    missing.program("etcd", "etcd-server")
    node.requirements()
    images.all_archives()


@contextmanager
def running(archives: Sequence[Path] | None = None) -> Iterator[Cluster]:
    """Everything in namespaces of its own; gone at the end. `archives`: of the images that pods may name."""
    processes = Processes(isolate=True)
    try:
        one = Node(processes)
        one.start_network()
        one.start_containerd()
        control_plane = ControlPlane(
            processes, listen="0.0.0.0", advertise=one.place.address, outside_port=processes.port
        )
        one.start_forwarding(control_plane.port)
        control_plane.launch()
        for archive in images.all_archives() if archives is None else archives:
            one.import_image(archive)
        one.keep_images()
        control_plane.wait_working()
        one.start(control_plane, connect(kubeconfig=str(control_plane.kubeconfig)))
        with namespaces.processor_of(processes.state.name):
            yield Cluster(control_plane.kubeconfig, control_plane, one)
    finally:
        processes.close()
