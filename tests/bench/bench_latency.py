"""What two sidecars add to a request: `bench_latency.py [--seconds N]`.

HTTP/1.1, kept-alive connections, 500 requests a second in an open loop, from a pod to a pod. Two ways in the same run,
in turns: direct (a port that both sides exclude from interception), and through both sidecars with mutual TLS.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import mesh as bench
from tests.support.local_mesh import LocalMesh, local_mesh

PACE = str(Path(__file__).resolve().parent / "apps" / "pace.py")
RATE, CONNECTIONS = 500, 8
EXCLUDED = {
    "traffic.sidecar.istio.io/excludeInboundPorts": "8081",
    "traffic.sidecar.istio.io/excludeOutboundPorts": "8081",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        folder = Path(directory)
        client = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client", "namespace": bench.NAMESPACE, "annotations": EXCLUDED},
            "spec": {"containers": [{"name": "idle", "image": "bench/idle:1"}]},
        }
        objects = [bench.namespace(), *bench.server("server", 1, EXCLUDED), client]
        manifests, images = bench.write(folder, objects)
        with local_mesh(folder, manifests, images) as mesh:
            mesh.settle()
            measure(mesh, options.seconds, options.rounds)


def measure(mesh: LocalMesh, seconds: float, rounds: int) -> None:
    pods = mesh.json("local", "status")["pods"]
    address = next(pod["ip"] for pod in pods if pod["name"].startswith("server"))
    ways = {"direct": (address, "8081"), "two sidecars": ("server", "80")}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for way, target in [*ways.items()] * rounds:
        words = [sys.executable, PACE, *target, str(RATE), str(seconds), str(CONNECTIONS)]
        result = json.loads(mesh.inside("bench/client", *words))
        assert not result["failures"], result["failures"]
        found[way] += [latency / 1000 for latency in result["latencies"]]
    for way, latencies in found.items():
        shown = ", ".join(f"p{round(part * 100)} {bench.quantile(latencies, part):.2f} ms" for part in (0.5, 0.9, 0.99))
        print(f"{way:>13}, {RATE}/s, {len(latencies)} requests: {shown}")
    added = [bench.quantile(found["two sidecars"], p) - bench.quantile(found["direct"], p) for p in (0.5, 0.99)]
    print(f"        added: p50 {added[0]:.2f} ms, p99 {added[1]:.2f} ms")


if __name__ == "__main__":
    main()
