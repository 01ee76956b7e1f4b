"""What the webhook adds to the creation of a pod at a real API server: `python tests/bench/bench_admission.py`.

Pods are created one at a time, in turns in a namespace without and in one with injection, so that whatever else this
machine does meets both. The webhook has a certificate from files and runs beside the API server, as in a cluster.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kube.client import Client
from tests.cluster.api_server import running
from tests.cluster.webhooks import names, ready_namespace, serving
from tests.webhook.harness import REVIEWS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pods", type=int, default=1000, help="of each kind")
    count = parser.parse_args().pods
    with running() as api, tempfile.TemporaryDirectory() as folder, serving(api, Path(folder)) as (place, _):
        labels = {"istio.io/rev": place.revision}
        with ready_namespace(api) as plain, ready_namespace(api, labels) as injected:
            for namespace in (plain, injected):
                api.token(namespace, "bookinfo-reviews")
            for _ in range(30):
                for namespace in (plain, injected):
                    create(api.client, namespace)
            taken: dict[str, list[float]] = {plain: [], injected: []}
            for _ in range(count):
                for namespace in (plain, injected):
                    taken[namespace].append(create(api.client, namespace))
            check(api.client, plain, injected)
    report(taken[plain], taken[injected])


def create(client: Client, namespace: str) -> float:
    """Seconds for the creation of a pod."""
    meta = {"generateName": "reviews-", "labels": REVIEWS["metadata"]["labels"]}
    spec = {key: value for key, value in REVIEWS["spec"].items() if key not in ("priority", "volumes")}
    spec["containers"] = [{**spec["containers"][0], "volumeMounts": []}]
    began = time.perf_counter()
    client.post(f"/api/v1/namespaces/{namespace}/pods", {"metadata": meta, "spec": spec})
    return time.perf_counter() - began


def check(client: Client, plain: str, injected: str) -> None:
    for namespace, expected in ((plain, []), (injected, ["istio-init", "istio-proxy"])):
        made = client.get(f"/api/v1/namespaces/{namespace}/pods", {"limit": "5"})["items"]
        assert [names(pod) for pod in made] == [expected] * 5


def report(plain: list[float], injected: list[float]) -> None:
    def at(values: list[float], share: float) -> float:
        return sorted(values)[int(len(values) * share)] * 1e3

    print(f"creation of a pod at the API server, {len(plain)} without and {len(injected)} with injection, in turns, ms")
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        without, with_it = at(plain, share), at(injected, share)
        print(f"  {name}   without {without:6.2f}   with {with_it:6.2f}   added {with_it - without:6.2f}")
    print("  (to reach: added <= 10 ms p99; each pod is reviewed twice, since reinvocationPolicy is IfNeeded)")


if __name__ == "__main__":
    main()
