"""What Istio's metrics cost a request and an Envoy: `bench_metrics.py [--seconds N] [--rounds N]`.

Latency: one mesh with two pairs of pods, one in a namespace whose Telemetry turns metrics off; HTTP/1.1, kept-alive
connections, 500 requests a second in an open loop, through both sidecars with mutual TLS, the pairs in turns. Memory: a
client's and a server's Envoy with 20 peers each, every one asked, by Envoy's own count, metrics off and on in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from discovery.envoy.render import render
from discovery.plan.reporting import MetricName
from mesh import sds
from mesh.workloads import PEER_HEADER, PEER_METADATA, Workload
from tests.bench import mesh as bench
from tests.bench.bench_latency import CONNECTIONS, PACE, RATE
from tests.support import envoy, http, plans
from tests.support.certificates import Authority, Certificate
from tests.support.echo import EchoApp
from tests.support.local_mesh import LocalMesh, local_mesh
from tests.support.ports import free_port
from tests.support.waiting import wait_for

PEERS = 20
WITHOUT = f"{bench.NAMESPACE}-without"
TRUST = "spiffe://cluster.local/ns/default/sa/"
MB = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    memory(3)
    latency(options.seconds, options.rounds)


# ---- latency


def latency(seconds: float, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        folder = Path(directory)
        manifests, images = bench.write(folder, [*_pair(bench.NAMESPACE), *_pair(WITHOUT), _off()])
        with local_mesh(folder, manifests, images) as mesh:
            mesh.settle()
            _measure(mesh, seconds, rounds)


def _pair(namespace: str) -> list[dict[str, Any]]:
    client = {"metadata": {"name": "client"}, "spec": {"containers": [{"name": "idle", "image": "bench/idle:1"}]}}
    objects = [*bench.server("server"), {"apiVersion": "v1", "kind": "Pod", **client}]
    placed = [{**each, "metadata": {**each["metadata"], "namespace": namespace}} for each in objects]
    home = {"name": namespace, "labels": {"istio-injection": "enabled"}}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": home}, *placed]


def _off() -> dict[str, Any]:
    spec = {"metrics": [{"overrides": [{"disabled": True}]}]}
    meta = {"name": "off", "namespace": WITHOUT}
    return {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": meta, "spec": spec}


def _measure(mesh: LocalMesh, seconds: float, rounds: int) -> None:
    ways = {"without metrics": WITHOUT, "with metrics": bench.NAMESPACE}
    found: dict[str, list[list[float]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            words = [sys.executable, PACE, "server", "80", str(RATE), str(seconds), str(CONNECTIONS)]
            result = json.loads(mesh.inside(f"{ways[way]}/client", *words))
            assert not result["failures"], result["failures"]
            found[way].append([latency / 1000 for latency in result["latencies"]])
    together = {way: [each for run in runs for each in run] for way, runs in found.items()}
    for way, runs in found.items():
        every = together[way]
        shown = ", ".join(f"p{round(part * 100)} {bench.quantile(every, part):.3f} ms" for part in (0.5, 0.9, 0.99))
        middles = " ".join(f"{bench.quantile(run, 0.5):.3f}" for run in runs)
        print(f"{way:>16}, {RATE}/s, {len(every)} requests: {shown}; p50 of each round {middles}")
    added = [
        bench.quantile(together["with metrics"], part) - bench.quantile(together["without metrics"], part)
        for part in (0.5, 0.99)
    ]
    print(f"           added: p50 {added[0]:.3f} ms, p99 {added[1]:.3f} ms")


# ---- memory


def memory(rounds: int) -> None:
    taken: dict[tuple[str, bool], list[int]] = {}
    series = {}
    for metrics in [False, True] * rounds:
        with tempfile.TemporaryDirectory() as directory:
            for side, (allocated, lines) in _both(Path(directory), metrics).items():
                taken.setdefault((side, metrics), []).append(allocated)
                series[side] = lines
    for side in ("client", "server"):
        without, having = (median(taken[side, metrics]) / MB for metrics in (False, True))
        print(
            f"Envoy's memory, {side} with {PEERS} peers: {without:.2f} MB without metrics, {having:.2f} MB with, "
            f"{series[side]} lines of Istio's: {having - without:+.2f} MB"
        )


def _both(directory: Path, metrics: bool) -> dict[str, tuple[int, int]]:
    """Of each side the bytes that its Envoy has allocated, and how many lines of Istio's metrics it shows."""
    authority = Authority()
    inbound = free_port()
    ways = [free_port() for _ in range(PEERS)]
    (directory / "client").mkdir()
    (directory / "server").mkdir()
    with EchoApp("app") as app:
        serving = envoy.bind_listeners(_server(authority, app.port, inbound, metrics), {"virtualInbound": [inbound]})
        asking = _client(authority, inbound, metrics)
        asking = envoy.bind_listeners(asking, {f"out-{n}": [port] for n, port in enumerate(ways)})
        with (
            envoy.RunningEnvoy(serving, directory / "server") as server,
            envoy.RunningEnvoy(asking, directory / "client") as client,
        ):
            for _ in range(5):
                for port in ways:
                    assert http.get(port).status == 200
                for number in range(PEERS):
                    _ask_as(authority.issue(uri=f"{TRUST}peer-{number}"), authority, inbound, directory, number)
            running = {"client": client, "server": server}
            if metrics:
                wait_for(lambda: all(_lines(each) >= PEERS for each in running.values()))
            return {side: (_allocated(each), _lines(each)) for side, each in running.items()}


def _allocated(running: envoy.RunningEnvoy) -> int:
    return int(json.loads(running.admin("/memory"))["allocated"])


def _lines(running: envoy.RunningEnvoy) -> int:
    return sum(line.startswith("envoy_istio_") for line in running.admin("/stats/prometheus").splitlines())


def _ask_as(shown: Certificate, authority: Authority, port: int, directory: Path, number: int) -> None:
    """One request by a peer that has a sidecar of its own."""
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_text(shown.chain_pem)
    key.write_text(shown.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.root_pem)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["istio"])
    name = f"peer-{number}"
    peer = Workload(f"{name}-v1", "default", name, "v1", name, "v1").packed
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as stream:
        stream.sendall(f"GET / HTTP/1.1\r\nhost: app\r\n{PEER_HEADER}: {peer}\r\nconnection: close\r\n\r\n".encode())
        assert b" 200 " in stream.recv(65536)


def _bootstrap(fields: dict[str, Any], authority: Authority, account: str, metrics: bool) -> dict[str, Any]:
    svid = authority.issue(uri=TRUST + account)
    secrets = [
        sds.tls_secret(sds.DEFAULT, svid.chain_pem, svid.key_pem),
        sds.validation_secret(sds.ROOTCA, [authority.root_pem]),
    ]
    every = [{"name": name} for name in MetricName] if metrics else []
    reporting = {"client_metrics": every, "server_metrics": every}
    made = envoy.static_bootstrap(render(plans.plan({**fields, "reporting": reporting})), secrets, free_port())
    made["node"]["metadata"] = {PEER_METADATA: Workload(account, "default", account, "v1", account, "v1").packed}
    return made


def _server(authority: Authority, app: int, port: int, metrics: bool) -> dict[str, Any]:
    place = {"destination": "inbound", "route_table": "inbound", "peer_tls": "STRICT"}
    local = {"address": "127.0.0.1", "port": app, "host": "server.default.svc.cluster.local"}
    fields = {
        "inbound": [{"port": port, "protocol": "http", **place}],
        "destinations": [
            {"name": "inbound", "resolution": "local", "protocol": "http", "service": "default/server", **local}
        ],
        "route_tables": [_table("inbound", "inbound")],
    }
    return _bootstrap(fields, authority, "server", metrics)


def _client(authority: Authority, port: int, metrics: bool) -> dict[str, Any]:
    def reported(name: str) -> dict[str, str]:
        return {"name": name, "namespace": "default", "service": name, "revision": "v1", "app": name, "version": "v1"}

    names = [f"peer-{number}" for number in range(PEERS)]
    fields = {
        "outbound": [
            {"name": f"out-{n}", "address": "0.0.0.0", "port": 8000 + n, "protocol": "http", "route_table": name}
            for n, name in enumerate(names)
        ],
        "route_tables": [_table(name, name) for name in names],
        "destinations": [
            {
                "name": name,
                "resolution": "endpoints",
                "protocol": "http",
                "host": f"{name}.default.svc.cluster.local",
                "service": f"default/{name}",
                "tls": {"mode": "ISTIO_MUTUAL", "automatic": True},
            }
            for name in names
        ],
        "endpoints": [
            {
                "name": name,
                "endpoints": [{"address": "127.0.0.1", "port": port, "mesh_tls": True, "reported": reported(name)}],
            }
            for name in names
        ],
    }
    return _bootstrap(fields, authority, "client", metrics)


def _table(name: str, destination: str) -> dict[str, Any]:
    route = {"name": "default", "match": {}, "targets": [{"destination": destination}]}
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


if __name__ == "__main__":
    main()
