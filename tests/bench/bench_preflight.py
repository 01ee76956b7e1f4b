"""The webhook's answer to one object with preflight: `python tests/bench/bench_preflight.py`.

The real webhook asks a real discovery, which plans for one proxy of each shape and has a real Envoy load what changed.
`--services` Services with a pod each, in `--namespaces` namespaces; each request has a VirtualService of another
Service, of three rules, seen by every proxy or (`own namespace`) by those of one namespace.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.bench_validation import ask, connected, reviewed
from tests.discovery.harness import HOME, ROLE, Cluster, DiscoveryProcess, endpoints, pod, service
from tests.webhook.harness import NAME, WebhookProcess

Raw = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--namespaces", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        version = cluster.put(*mesh(options.services, options.namespaces))
        with DiscoveryProcess(cluster, Path(folder)) as discovery:
            discovery.caught_up(version)
            process = webhook(cluster, discovery, Path(folder))
            try:
                process.ready()
                with connected(process) as connection:
                    print(f"{options.requests} requests each; {options.services} services with a pod each, ms")
                    measure("every proxy", connection, options, [])
                    measure("own namespace", connection, options, ["."])
                print("  (to reach: p99 <= 300 ms)")
                print("  " + "\n  ".join(line for line in process.health("/metrics")[1].splitlines() if came(line)))
            finally:
                process.close()


def came(line: str) -> bool:
    return line.startswith("heddle_preflight_total")


def mesh(count: int, namespaces: int) -> list[Raw]:
    objects: list[Raw] = []
    for number in range(count):
        name, home, ip = f"s{number}", f"team-{number % namespaces}", f"10.244.{number // 250}.{number % 250 + 1}"
        objects += [
            service(name, f"10.96.{number // 250}.{number % 250 + 1}", namespace=home),
            pod(f"{name}-0", ip, account=name, namespace=home),
            endpoints(name, 8080, {ip: f"{name}-0"}, namespace=home),
        ]
    return objects


def webhook(cluster: Cluster, discovery: DiscoveryProcess, folder: Path) -> WebhookProcess:
    certificate = discovery.authority.issue(uri=ROLE.format(HOME, "heddle-webhook"), dns=NAME)
    chain, key = folder / "webhook.pem", folder / "webhook.key"
    chain.write_text(certificate.chain_pem)
    key.write_text(certificate.key_pem)
    files = ("--certificate-file", str(chain), "--key-file", str(key), "--trust-bundle", str(discovery.roots))
    more = ("--no-registration", "--discovery-address", f"127.0.0.1:{discovery.port}")
    return WebhookProcess(cluster.address, enrol=files, root_pem=discovery.authority.root_pem, more=more)


def routed(number: int, home: str, turn: int, export_to: list[str]) -> Raw:
    target = {"destination": {"host": f"s{number}"}}
    rules = [{"match": [{"uri": {"prefix": f"/{turn}/{each}"}}], "route": [target]} for each in range(2)]
    changes = {"request": {"set": {"x-from": "%DOWNSTREAM_REMOTE_ADDRESS%"}}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": f"s{number}", "namespace": home},
        "spec": {
            "hosts": [f"s{number}"],
            "exportTo": export_to,
            "http": [*rules, {"route": [target], "headers": changes}],
        },
    }


def measure(
    name: str, connection: http.client.HTTPSConnection, options: argparse.Namespace, export_to: list[str]
) -> None:
    taken = []
    for turn in range(options.requests + 5):
        number = turn % options.services
        body = json.loads(reviewed(routed(number, f"team-{number % options.namespaces}", turn, export_to)))
        body["request"]["namespace"] = f"team-{number % options.namespaces}"
        body["request"]["name"] = f"s{number}"
        began = time.perf_counter()
        answer = ask(connection, json.dumps(body).encode())
        taken.append((time.perf_counter() - began) * 1e3)
        assert answer["allowed"], answer
    taken = sorted(taken[5:])
    p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
    print(f"  {name:16} p50 {p50:6.1f}   p99 {p99:6.1f}")


if __name__ == "__main__":
    main()
