"""The webhook's answer to one object: `python tests/bench/bench_validation.py`.

The real process over HTTPS, one connection as API servers keep it, beside a mesh of `--services` Services, half as many
Istio objects, and ten pods for each Service, all of which its warnings look at. Objects: a small one, one of ten routes
that is doubtful in several ways, one that is refused with several errors.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.webhook.harness import ApiServer, WebhookProcess, namespace, review_of

Raw = dict[str, Any]
NAMESPACES = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    server = ApiServer(
        [namespace(home(n), istio_injection="enabled") for n in range(NAMESPACES)], mesh(options.services)
    )
    process = WebhookProcess(server.url)
    try:
        process.ready()
        with connected(process) as connection:
            wait_for_warnings(connection)
            print(f"{options.requests} requests each, one connection; {options.services} services, ms")
            for name, body in reviews().items():
                measure(name, connection, body, options.requests)
        print("  (to reach: p99 <= 5 ms)")
        print(f"  webhook: {resident(process.process.pid):.0f} MiB resident")
    finally:
        process.close()
        server.close()


def home(number: int) -> str:
    return f"team-{number % NAMESPACES}"


def mesh(count: int) -> dict[str, list[Raw]]:
    def meta(number: int, name: str = "", **more: Any) -> Raw:
        return {"name": name or f"s{number}", "namespace": home(number), "uid": str(number), **more}

    ports = [{"name": "http", "port": 80}]
    labels = [{"app": f"s{number}", "version": "v1"} for number in range(count)]
    return {
        "services": [
            {"metadata": meta(n), "spec": {"selector": {"app": f"s{n}"}, "ports": ports}} for n in range(count)
        ],
        "pods": [
            {"metadata": meta(n, f"s{n}-{pod}", labels=labels[n], annotations={"sidecar.istio.io/status": "{}"})}
            for n in range(count)
            for pod in range(10)
        ],
        "virtualservices": [
            {
                "metadata": meta(n),
                "spec": {"hosts": [f"s{n}"], "http": [{"route": [{"destination": {"host": f"s{n}", "subset": "v1"}}]}]},
            }
            for n in range(0, count, 4)
        ],
        "destinationrules": [
            {"metadata": meta(n), "spec": {"host": f"s{n}", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}}
            for n in range(0, count, 4)
        ],
        **{plural: [] for plural in ("gateways", "peerauthentications", "serviceentries", "sidecars", "proxyconfigs")},
    }


def reviews() -> dict[str, bytes]:
    small = virtual_service([{"route": [{"destination": {"host": "s0"}}]}])
    doubtful = virtual_service(
        [
            {"match": [{"uri": {"prefix": f"/{n}"}}], "route": [{"destination": {"host": f"s{n}", "subset": "v9"}}]}
            for n in range(10)
        ]
    )
    wrong = virtual_service([{"match": [{"uri": {"regex": "("}}], "route": [{"destination": {"hst": "s0"}}]}] * 5)
    return {"small": reviewed(small), "ten routes, doubtful": reviewed(doubtful), "refused": reviewed(wrong)}


def virtual_service(http_routes: list[Raw]) -> Raw:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "new", "namespace": home(0), "creationTimestamp": "2027-01-01T00:00:00Z"},
        "spec": {"hosts": ["s0"], "http": http_routes},
    }


def reviewed(raw: Raw) -> bytes:
    kind = {"group": "networking.istio.io", "version": "v1", "kind": raw["kind"]}
    resource = {"group": "networking.istio.io", "version": "v1", "resource": "virtualservices"}
    return json.dumps(review_of(raw, kind=kind, resource=resource, namespace=home(0), name="new")).encode()


@contextmanager
def connected(process: WebhookProcess) -> Iterator[http.client.HTTPSConnection]:
    context = ssl.create_default_context(cadata=process.root_pem)
    context.check_hostname = False
    connection = http.client.HTTPSConnection("127.0.0.1", process.port, context=context, timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: http.client.HTTPSConnection, body: bytes) -> Raw:
    connection.request("POST", "/validate", body, {"Content-Type": "application/json"})
    answer: Raw = json.loads(connection.getresponse().read())["response"]
    return answer


def wait_for_warnings(connection: http.client.HTTPSConnection) -> None:
    """Until everything was read: a subset that does not exist is warned of, a Service that does is not."""
    for _ in range(600):
        said = ask(connection, reviews()["ten routes, doubtful"]).get("warnings") or [""]
        if any("has no subset" in text for text in said):
            return
        time.sleep(0.1)
    raise SystemExit("the webhook has not read the mesh within a minute")


def measure(name: str, connection: http.client.HTTPSConnection, body: bytes, requests: int) -> None:
    for _ in range(50):
        answer = ask(connection, body)
    taken = []
    for _ in range(requests):
        began = time.perf_counter()
        ask(connection, body)
        taken.append((time.perf_counter() - began) * 1e3)
    taken.sort()
    p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
    what = f"{len(answer.get('warnings') or ())} warnings" if answer["allowed"] else "refused"
    print(f"  {name:22} p50 {p50:6.2f}   p99 {p99:6.2f}   {len(body) / 1024:6.1f} KiB   {what}")


def resident(pid: int) -> float:
    """MiB of the process and its workers."""
    pids = [pid, *(int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    statuses = [Path(f"/proc/{each}/status").read_text() for each in pids]
    return sum(int(text.split("VmRSS:")[1].split()[0]) for text in statuses) / 1024


if __name__ == "__main__":
    main()
