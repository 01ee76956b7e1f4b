"""How soon the last proxy has a change: a real discovery process, simulated agents holding polls over mutual TLS.

    python tests/bench/bench_push.py [--quick]

Measured from the write into the API server's store to the moment at which the last agent has read its answer. Beside
it, in the same run: the same change when each proxy is sent everything (state of the world), as xDS without deltas has
it.
No Envoys here; API server, agents and discovery share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.discovery.harness import (
    ROLE,
    Cluster,
    DiscoveryProcess,
    endpoints,
    pod,
    service,
    virtual_service,
)

SHAPES = ((20, 5, 2), (20, 1000, 10), (500, 1000, 10))
QUICK = ((20, 5, 2),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the smallest")
    parser.add_argument("--shape", type=int, nargs=3, action="append", help="proxies, services, endpoints of each")
    parser.add_argument("--clients", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients:
        asyncio.run(Clients(*options.clients).run())
        return
    print(f"{'proxies':>7} {'services':>8} {'change':24} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms each':>12}")
    for proxies, services, backends in options.shape or (QUICK if options.quick else SHAPES):
        measure(proxies, services, backends)


def measure(proxies: int, services: int, backends: int) -> None:
    rounds = 100 if proxies * services <= 1000 else 30 if proxies <= 100 else 10
    with tempfile.TemporaryDirectory() as name, Cluster() as cluster:
        directory = Path(name)
        mesh = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}]
        mesh += [service(f"s{n}", f"10.96.{n >> 8}.{n & 255}") for n in range(services)]
        mesh += [slice_of(n, backends) for n in range(services)]
        mesh += [pod(f"p{n}", address(0, n), account="load") for n in range(proxies)]
        cluster.put(*mesh)
        with DiscoveryProcess(cluster, directory) as discovery:
            context = discovery.authority.issue(uri=ROLE.format("default", "load"))
            (directory / "client.pem").write_text(context.chain_pem + context.key_pem)
            began = time.monotonic()
            with Agents(discovery, proxies, whole=False) as agents:
                seconds = agents.wait() - began
                print(f"{proxies:7} {services:8} {'all connect, everything':24} {seconds * 1000:8.0f}", flush=True)
                for what, change in changes(cluster, backends):
                    cpu = cpu_seconds(discovery)
                    took = [push(agents, partial(change, n)) for n in range(rounds)]
                    report(proxies, services, what, took, (cpu_seconds(discovery) - cpu) / rounds)
                print(f"{'':16} discovery's memory: {memory(discovery)}", flush=True)
            with Agents(discovery, proxies, whole=True) as agents:
                agents.wait()
                few = max(3, rounds // 10)
                cpu = cpu_seconds(discovery)
                change = changes(cluster, backends)[0][1]
                took = [push(agents, partial(change, n + 1000)) for n in range(few)]
                report(proxies, services, "  all sent everything", took, (cpu_seconds(discovery) - cpu) / few)


def changes(cluster: Cluster, backends: int) -> list[tuple[str, Callable[[int], object]]]:
    return [
        ("a VirtualService", lambda n: cluster.put(virtual_service("v", "s0", f"/{n}"))),
        ("an endpoint", lambda n: cluster.put(slice_of(1, backends + (n + 1) % 2))),
    ]


def slice_of(number: int, backends: int) -> dict[str, Any]:
    return endpoints(
        f"s{number}", 8080, {address(1 + number % 200, number // 200 * 20 + n): "" for n in range(backends)}
    )


def address(block: int, number: int) -> str:
    return f"10.{block}.{number >> 8}.{number & 255}"


def push(agents: Agents, change: Callable[[], object]) -> float:
    time.sleep(0.02)
    began = time.monotonic()
    change()
    return agents.wait() - began


def report(proxies: int, services: int, what: str, took: list[float], cpu: float) -> None:
    ordered = sorted(took)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    p50 = statistics.median(ordered)
    print(f"{proxies:7} {services:8} {what:24} {p50 * 1000:8.1f} {p99 * 1000:8.1f} {cpu * 1000:12.1f}", flush=True)


def cpu_seconds(discovery: DiscoveryProcess) -> float:
    fields = Path(f"/proc/{discovery.worker_pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(discovery: DiscoveryProcess) -> str:
    text = Path(f"/proc/{discovery.worker_pid()}/smaps_rollup").read_text()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return f"{sizes['Rss'] // 1024} MiB resident, {(sizes['Private_Clean'] + sizes['Private_Dirty']) // 1024} private"


class Agents:
    """All agents in a process of their own, so that reading answers does not hold up the API server."""

    def __init__(self, discovery: DiscoveryProcess, proxies: int, *, whole: bool) -> None:
        directory, port = str(discovery.directory), str(discovery.port)
        self._command = [sys.executable, __file__, "--clients", directory, port, str(proxies), str(int(whole)), "x"]

    def __enter__(self) -> Agents:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> float:
        """The monotonic time at which the last of them had an answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the agents ended"
        return float(line)


class Clients:
    """Agents that say at once that everything was applied. `whole`: each poll is a session of its own, with nothing."""

    def __init__(self, directory: str, port: str, proxies: str, whole: str, _last: str) -> None:
        self._directory, self._port = Path(directory), int(port)
        self._count, self._whole = int(proxies), whole == "1"
        self._answered = 0

    async def run(self) -> None:
        context = ssl.create_default_context(cafile=str(self._directory / "roots.pem"))
        context.check_hostname = False
        context.load_cert_chain(self._directory / "client.pem")
        await asyncio.gather(*(self._agent(number, context) for number in range(self._count)))

    async def _agent(self, number: int, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=context, limit=1 << 26)
        proxy = {"namespace": "default", "pod": f"p{number}", "ip": address(0, number)}
        body: dict[str, Any] = {"proxy": proxy, "session": "", "sequence": 0, "holdSeconds": 50}
        while True:
            answer = await exchange(reader, writer, body)
            if answer is None:
                continue
            self._answered += 1
            if self._answered % self._count == 0:
                print(time.monotonic(), flush=True)
            sequence = answer["sequence"]
            kinds = {*answer["changed"], *answer["removed"]}
            applied = {**body.get("applied", {}), **{kind: {"sequence": sequence, "since": ""} for kind in kinds}}
            body = {**body, "session": answer["session"], "sequence": sequence, "applied": applied}
            if self._whole:
                await until_changed(reader, writer, body)
                body = {**body, "session": "", "sequence": 0, "applied": {}}


async def until_changed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    while await exchange(reader, writer, body) is None:
        pass


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]) -> Any:
    raw = orjson.dumps(body)
    head = (
        f"POST /v1/config HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    writer.write(head.encode() + raw)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")), 0)
    text = await reader.readexactly(length)
    status = lines[0].split()[1]
    assert status in ("200", "204"), (lines[0], text[:500])
    if not length:
        return None
    # Only the head and the tail are of interest; parsing 500 full answers would be measured as discovery's time.
    return orjson.loads(text) if length < 100_000 else summary(text)


def summary(text: bytes) -> dict[str, Any]:
    session = json.loads(text[: text.index(b',"changed"')] + b"}")
    kinds = ("clusters", "endpoints", "listeners", "routes", "virtualHosts")
    return {**session, "changed": dict.fromkeys(kinds), "removed": {}}


if __name__ == "__main__":
    main()
