"""Discovery at a real API server: when it is ready, and when a changed EndpointSlice is in force in a real Envoy.

    python tests/bench/bench_cluster_discovery.py [--services N] [--endpoints N] [--changes N]

etcd, API server and controllers, discovery under its own service account, and one real agent with its Envoy, all in a
network namespace of their own on this machine. A change is in force when the agent has told discovery that Envoy took
it; the clock starts before the write to the API server.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from mesh.identity import parse_identity
from tests.agent.control_plane import Authority, CaService
from tests.agent.sidecar import IDENTITY, Sidecar
from tests.bench.mesh import quantile
from tests.cluster import api_server
from tests.cluster.discovery_place import NODE, SERVICES, SLICES, Place
from tests.discovery.harness import DiscoveryProcess
from tests.support.certificates import Certificate

NAMESPACE = "default"


class AgentAuthority(Authority):
    """The agent's authority, as discovery's harness uses one."""

    def issue(self, *arguments: Any, uri: str = "", **more: Any) -> Any:
        if not uri:
            return super().issue(*arguments, **more)
        made = self.material(parse_identity(uri))
        return Certificate(made.chain_pem.decode(), made.key_pem.decode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        again = ["unshare", "--net", sys.executable, *sys.argv, "--inside"]
        sys.exit(subprocess.run(again, check=False).returncode)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as name, api_server.running() as api:
        place = Place(api, Path(name), NAMESPACE)
        place.open()
        fill(place, options.services, options.endpoints)
        measure(place, options.services, options.endpoints, options.changes)


def fill(place: Place, services: int, endpoints: int) -> None:
    post = place.api.client.post

    def make(number: int) -> None:
        name = f"s{number}"
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        post(SERVICES.format(NAMESPACE), {"metadata": {"name": name}, "spec": {"ports": ports}})
        post(SLICES.format(NAMESPACE), slice_of(number, endpoints))

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(make, range(services)))


def slice_of(number: int, endpoints: int) -> dict[str, Any]:
    base = number * 16
    addresses = [f"10.{base >> 16}.{(base >> 8) & 255}.{(base & 255) + n}" for n in range(endpoints)]
    return {
        "metadata": {"name": f"s{number}", "labels": {"kubernetes.io/service-name": f"s{number}"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [each]} for each in addresses],
    }


def measure(place: Place, services: int, endpoints: int, changes: int) -> None:
    authority = AgentAuthority()
    discovery = DiscoveryProcess(place.kubeconfig, place.directory, authority=authority)  # type: ignore[arg-type]
    began = time.monotonic()
    with discovery:
        ready = time.monotonic() - began
        print(
            f"{services} services x {endpoints} endpoints: ready after {ready:.2f} s, {memory(discovery)}", flush=True
        )
        pod(place)
        ca = CaService(authority, IDENTITY)
        sidecar = Sidecar(place.directory, ca, discovery, authority.root_pem)  # type: ignore[arg-type]
        sidecar.start()
        try:
            sidecar.await_ready()
            took = [change(place, discovery, number, endpoints) for number in range(changes)]
        finally:
            sidecar.stop()
            ca.stop()
        p50, p99 = (quantile(took, part) * 1000 for part in (0.5, 0.99))
        print(f"EndpointSlice written -> in force in Envoy, {changes} changes: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        print(f"after that {memory(discovery)}")


def change(place: Place, discovery: DiscoveryProcess, number: int, endpoints: int) -> float:
    """Seconds of one change: an endpoint goes, or comes back."""
    time.sleep(0.05)
    path = f"{SLICES.format(NAMESPACE)}/s1"
    body = slice_of(1, endpoints - 1 if number % 2 == 0 else endpoints)
    began = time.monotonic()
    written = place.api.client.merge(path, {"endpoints": body["endpoints"]})
    version = written["metadata"]["resourceVersion"]
    answer = discovery.status(f"?observed={version}&kind=EndpointSlice&wait=20")
    assert answer["applied"], answer
    return time.monotonic() - began


def pod(place: Place) -> None:
    """The pod that the agent says it is in."""
    path = f"/api/v1/namespaces/{NAMESPACE}"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reviews"}}
    place.api.client.apply(f"{path}/serviceaccounts/reviews", account)
    container = {"name": "app", "image": "example.org/app"}
    spec = {"serviceAccountName": "reviews", "nodeName": NODE, "containers": [container]}
    meta = {"name": "reviews-v1", "annotations": {"sidecar.istio.io/status": "{}"}}
    place.api.client.post(f"{path}/pods", {"metadata": meta, "spec": spec})
    place.set_ready("reviews-v1", True, ip="127.0.0.1")


def memory(discovery: DiscoveryProcess) -> str:
    text = Path(f"/proc/{discovery.worker_pid()}/status").read_text()
    resident = int(text.split("VmRSS:")[1].split()[0]) // 1024
    return f"{resident} MiB resident"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
