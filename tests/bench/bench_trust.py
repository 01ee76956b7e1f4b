"""How soon the last of many agents trusts a new bundle: a real discovery, a ca that is played, agents that hold polls.

    python tests/bench/bench_trust.py [--agents 1000]

Measured from the moment at which the ca has the new bundle to the one at which the last agent has read it, and to the
one at which discovery knows that the last has taken it. No Envoys here; ca, agents and discovery share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from mesh.identity import Identity
from svid.material import TrustBundle
from svid.tls import client_context
from svid.trust import News, news_json
from tests.agent.control_plane import TRUST_DOMAIN, Authority, CaService
from tests.bench.bench_push import address, exchange
from tests.discovery.harness import Cluster, pod
from tests.support.ports import free_port

DISCOVERY = Identity(TRUST_DOMAIN, "istio-system", "heddle-discovery")
OPERATOR = Identity(TRUST_DOMAIN, "istio-system", "heddle-operator")
AGENT = Identity(TRUST_DOMAIN, "default", "a")
ROUNDS = 5


class Ca(CaService):
    """Certifies discovery, and says what is trusted."""

    def __init__(self, authority: Authority) -> None:
        self.news = News(TrustBundle(TRUST_DOMAIN, 1, (authority.root_pem,)))
        super().__init__(authority, DISCOVERY)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/certificates":
            return super().answer(path, body)
        known = (body["sequence"], body["revision"], body["order"])
        return (204, None) if known == self.news.version else (200, news_json(self.news))

    def next(self, extra: str) -> int:
        """Another root is trusted from now on."""
        roots = (self.news.bundle.roots[0], extra)
        self.news = News(TrustBundle(TRUST_DOMAIN, self.news.bundle.sequence + 1, roots))
        return self.news.bundle.sequence


class Agents:
    """Each holds a poll, and says at once that its Envoy has taken what it is told."""

    def __init__(self, count: int, port: int, context: ssl.SSLContext) -> None:
        self._count, self._port, self._context = count, port, context
        self._has: dict[int, int] = {}
        self._news = asyncio.Condition()

    async def run(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context, limit=1 << 24)
        proxy = {"namespace": "default", "pod": f"p{number}", "ip": address(0, number)}
        body: dict[str, Any] = {"proxy": proxy, "session": "", "sequence": 0, "holdSeconds": 50}
        body["trust"] = {"sequence": 1}
        while True:
            answer = await exchange(reader, writer, body)
            if answer is None:
                continue
            told = answer.get("trust") or {"sequence": body["trust"]["sequence"]}
            body = {**body, "session": answer["session"], "sequence": answer["sequence"]}
            body["trust"] = {"sequence": told["sequence"]}
            async with self._news:
                self._has[number] = told["sequence"]
                self._news.notify_all()

    async def all_have(self, sequence: int) -> float:
        async with self._news:
            await self._news.wait_for(lambda: len(self._has) == self._count and min(self._has.values()) >= sequence)
            return time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    count = parser.parse_args().agents
    authority, other = Authority(), Authority()
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        cluster.reset([pod(f"p{number}", address(0, number), account="a") for number in range(count)])
        directory, ca, port = Path(folder), Ca(authority), free_port()
        (directory / "roots.pem").write_text(authority.root_pem)
        (directory / "token").write_text("token")
        command = [sys.executable, "-m", "discovery", "--kube-api", cluster.address, "--listen", f"127.0.0.1:{port}"]
        command += ["--metrics-listen", f"127.0.0.1:{free_port()}", "--ca-address", f"127.0.0.1:{ca.port}"]
        command += ["--trust-bundle", str(directory / "roots.pem"), "--token-file", str(directory / "token")]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            asyncio.run(measure(count, port, ca, authority, other.root_pem))
        finally:
            process.terminate()
            process.wait(20)


async def measure(count: int, port: int, ca: Ca, authority: Authority, extra: str) -> None:
    material = authority.material(AGENT)
    agents = Agents(count, port, client_context(authority.root_pem, material))
    tasks = [asyncio.create_task(connected(agents, number)) for number in range(count)]
    await agents.all_have(1)
    print(f"{'agents':>7} {'round':>6} {'last has read it, ms':>22} {'discovery knows, ms':>20}")
    operator = client_context(authority.root_pem, authority.material(OPERATOR))
    for number in range(ROUNDS):
        await asyncio.sleep(1.0)
        began, sequence = time.monotonic(), ca.next(extra)
        read = await agents.all_have(sequence) - began
        known = await asyncio.to_thread(acknowledged, port, operator, sequence) - began
        print(f"{count:7} {number + 1:6} {read * 1000:22.0f} {known * 1000:20.0f}", flush=True)
    for task in tasks:
        task.cancel()


async def connected(agents: Agents, number: int) -> None:
    """Again and again, until discovery is there and knows the pod."""
    while True:
        try:
            await agents.run(number)
        except (OSError, AssertionError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.2)


def acknowledged(port: int, context: ssl.SSLContext, sequence: int) -> float:
    """When discovery said of all that they had taken it."""
    while True:
        connection = HTTPSConnection("127.0.0.1", port, context=context)
        connection.request("GET", "/v1/trust")
        proxies = json.loads(connection.getresponse().read())["proxies"]
        connection.close()
        if all(proxy["trust"]["sequence"] >= sequence for proxy in proxies):
            return time.monotonic()


if __name__ == "__main__":
    main()
