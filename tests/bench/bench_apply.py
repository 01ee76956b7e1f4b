"""From the write of a VirtualService to the last of N local proxies that applied it: `bench_apply.py [--changes N]`.

Real everything: files, watch, discovery, agents and Envoys, all on this machine. The clock starts at the file's write
and stops when discovery has the last proxy's acknowledgement, which an agent sends after its Envoy took the route.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from cli.mesh_access import Mesh
from tests.bench import mesh as bench
from tests.support.local_mesh import LocalMesh, local_mesh

ROUTE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: server, namespace: bench}}
spec:
  hosts: [server]
  http:
    - timeout: {seconds}s
      route: [{{destination: {{host: server}}}}]
"""
ISTIOD = "istiod, one proxy, 5 services (docs: measured on two such cores): 105 ms"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=60)
    parser.add_argument("--proxies", type=int, nargs="*", default=[1, 20])
    options = parser.parse_args()
    for proxies in options.proxies:
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o755)
            folder = Path(directory)
            manifests, images = bench.write(folder, [bench.namespace(), *bench.server("server", proxies)])
            (manifests / "route.yaml").write_text(ROUTE.format(seconds=1))
            with local_mesh(folder, manifests, images) as mesh:
                mesh.settle()
                show(proxies, changes(mesh, options.changes))
    print(f"  {ISTIOD}")


def changes(mesh: LocalMesh, count: int) -> list[float]:
    """Milliseconds of each change."""
    engine = Mesh(mesh.state)
    found = []
    for number in range(count):
        text = ROUTE.format(seconds=10 + number)
        mesh.write("route.yaml", text)
        while True:
            last = engine.get("/status")["changes"][-1:]
            if last and last[0]["number"] == number + 1 and last[0]["seconds"] is not None:
                break
            time.sleep(0.1)  # asking more often would take the time that is measured
        found.append(last[0]["seconds"] * 1000)
        time.sleep(0.1)
    return found


def show(proxies: int, found: list[float]) -> None:
    p50, p99 = bench.quantile(found, 0.5), bench.quantile(found, 0.99)
    print(
        f"write of a VirtualService -> applied by the last of {proxies:2} proxies, {len(found)} changes: "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, worst {max(found):.0f} ms"
    )


if __name__ == "__main__":
    main()
