"""How soon pods that are created at once have their identities: `python tests/bench/bench_identities.py [--pods N]`.

A real API server and etcd, two replicas of the ca with their own rights, the root in a Secret, each certificate told of
in a WorkloadCertificate. No kubelet: for each pod this program creates the object on a node, asks for its bound token
(TokenRequest), makes a key, and asks a replica, with a connection of its own, as an agent does. All of it, the API
server and this program too, shares the machine's cores.

Counted for each pod: from just before its object is created, and from its token in hand, to its certificate in hand;
and, the harder case, when all of them have their tokens and ask at the same moment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from svid.client import Token, fetch
from svid.request import new_key_request
from tests.bench.bench_ca import cpu_seconds
from tests.cluster.api_server import running
from tests.cluster.ca_replicas import Place, Replica, certificates_defined, place

CLIENTS = 32  # at once: kubelets and agents of a handful of nodes


def identity(own: Place, replica: Replica, roots: str, name: str) -> tuple[float, float]:
    """Seconds since its creation began, and since its token was there."""
    began = time.perf_counter()
    token = own.token(own.add_pod(name))
    asked = time.perf_counter()
    fetch(replica.address, roots, new_key_request(), Token(token))
    done = time.perf_counter()
    return done - began, done - asked


def shown(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"p50 {p50 * 1000:,.0f} ms, p99 {p99 * 1000:,.0f} ms, last {ordered[-1] * 1000:,.0f} ms"


def measure(own: Place, replicas: list[Replica], label: str, pods: int) -> None:
    roots = replicas[0].roots
    cpu = sum(cpu_seconds(replica.process.pid) for replica in replicas)
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        jobs = [clients.submit(identity, own, replicas[n % len(replicas)], roots, f"{label}-{n}") for n in range(pods)]
        taken = [job.result() for job in jobs]
    wall = time.perf_counter() - began
    while sum(name.startswith(f"{label}-") for name in own.certificates()) < pods:
        time.sleep(0.02)
    told = time.perf_counter() - began
    cpu = sum(cpu_seconds(replica.process.pid) for replica in replicas) - cpu
    print(f"{pods} pods at once, {len(replicas)} replicas ({label}): all have identities after {wall:.2f} s")
    print(f"  from creation of the pod   {shown([all_of_it for all_of_it, _ in taken])}")
    print(f"  from its token in hand     {shown([certificate for _, certificate in taken])}")
    print(f"  all told of in objects after {told:.2f} s; CPU of the ca {cpu / pods * 1000:.1f} ms a pod")


def all_at_once(own: Place, replicas: list[Replica], pods: int) -> None:
    """Every token is in hand, and every agent asks at the same moment."""
    roots = replicas[0].roots
    tokens = [own.token(own.add_pod(f"moment-{n}")) for n in range(pods)]
    requests = [new_key_request() for _ in tokens]
    ready = threading.Barrier(pods + 1)
    moment = 0.0

    def ask(n: int) -> float:
        ready.wait()
        fetch(replicas[n % len(replicas)].address, roots, requests[n], Token(tokens[n]), timeout=60.0)
        return time.perf_counter() - moment

    with ThreadPoolExecutor(pods) as agents:
        jobs = [agents.submit(ask, n) for n in range(pods)]
        moment = time.perf_counter()
        ready.wait()
        print(f"{pods} agents ask in one moment     {shown([job.result() for job in jobs])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=2)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        running() as api,
        certificates_defined(api),
        place(api, Path(scratch)) as own,
    ):
        replicas = [own.replica(f"heddle-ca-{n}") for n in range(options.replicas)]
        try:
            for replica in replicas:
                replica.__enter__()
            own.token(own.add_pod("before"))  # makes the service account
            for round_ in ("first", "second"):
                measure(own, replicas, round_, options.pods)
            all_at_once(own, replicas, options.pods)
        finally:
            for replica in replicas:
                if hasattr(replica, "process"):
                    replica.__exit__()


if __name__ == "__main__":
    main()
