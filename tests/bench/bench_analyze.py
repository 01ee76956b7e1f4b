"""`heddle analyze` of 1,000 Services with their Deployments and 500 objects of Istio's, from one file.

`python tests/bench/bench_analyze.py`
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.local_mesh import HEDDLE

SERVICES, ROUTED, RUNS = 1000, 250, 5

SERVICE = """apiVersion: v1
kind: Service
metadata: {{name: svc-{n}, namespace: ns-{home}}}
spec:
  selector: {{app: svc-{n}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: svc-{n}, namespace: ns-{home}}}
spec:
  selector: {{matchLabels: {{app: svc-{n}}}}}
  template:
    metadata: {{labels: {{app: svc-{n}, version: v1}}}}
    spec:
      containers: [{{name: app, image: app, ports: [{{containerPort: 8080}}]}}]
"""
ROUTES = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: svc-{n}, namespace: ns-{home}}}
spec:
  hosts: [svc-{n}]
  http:
    - match: [{{uri: {{prefix: /a}}}}]
      route: [{{destination: {{host: svc-{n}, subset: v1}}}}]
    - route:
        - destination: {{host: svc-{n}, subset: v1}}
          weight: 90
        - destination: {{host: svc-{n}, subset: v2}}
          weight: 10
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: svc-{n}, namespace: ns-{home}}}
spec:
  host: svc-{n}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
"""


def main() -> None:
    parts = [SERVICE.format(n=n, home=n % 20) for n in range(SERVICES)]
    parts += [ROUTES.format(n=n, home=n % 20) for n in range(ROUTED)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mesh.yaml"
        file.write_text("---\n".join(parts))
        seconds = []
        for _ in range(RUNS):
            began = time.perf_counter()
            done = subprocess.run([HEDDLE, "analyze", "-f", str(file)], capture_output=True, text=True, check=True)
            seconds.append(time.perf_counter() - began)
    print(f"{min(seconds):.2f} to {max(seconds):.2f} s of {RUNS}: {done.stdout.splitlines()[-1]}")


if __name__ == "__main__":
    main()
