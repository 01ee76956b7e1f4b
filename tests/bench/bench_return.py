"""5,000 agents that come back at once: `python tests/bench/bench_return.py [--agents N] [--replicas N]`.

The ca as it is, with its rate limits, and a stand-in for the API server (keys and a watch of pods). Each agent makes a
connection of its own (TLS, nothing resumed), asks by its token, and, when it is refused or not answered in time, comes
back as the schedule of the real agent says (`svid.schedule`: the ca's Retry-After, or a doubling pause, with jitter).
Agents and ca share the machine's cores; two processes are the agents.

Counted from the moment at which all begin: when the last one has its certificate, and how often one had to ask.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import resource
import ssl
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from svid.request import new_key_request
from svid.schedule import Attempts, after_failure
from svid.tls import client_context
from tests.bench.bench_ca import cpu_seconds
from tests.ca.harness import ISSUER, ApiServer, CaProcess, TokenMint

PROCESSES = 2
PATIENCE = 10.0  # seconds that an agent waits for an answer


def request(token: str) -> bytes:
    body = json.dumps({"csr": new_key_request().csr_pem}).encode()
    return (
        b"POST /v1/certificates HTTP/1.1\r\nHost: ca\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
        % (token.encode(), len(body), body)
    )


async def ask(port: int, context: ssl.SSLContext, order: bytes) -> tuple[int, float]:
    """Status, and Retry-After; 0 when there was no answer."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            try:
                writer.write(order)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].split("\r\n", 1)[0])
                await reader.readexactly(length)
            finally:
                writer.transport.abort()
            told = head.partition("retry-after:")[2].split("\r\n", 1)[0].strip()
            return int(head.split(" ", 2)[1]), float(told or 0.0)
    return 0, 0.0


async def agent(port: int, context: ssl.SSLContext, order: bytes, begins: float) -> tuple[float, list[int]]:
    """Seconds until it had its certificate, and the status of each answer."""
    attempts, answers = Attempts(), []
    while True:
        status, told = await ask(port, context, order)
        answers.append(status)
        if status == 201:
            return time.time() - begins, answers
        attempts = after_failure(attempts, time.monotonic(), random.random(), told)
        await asyncio.sleep(max(0.0, attempts.not_before - time.monotonic()))


def agents(port: int, roots: str, orders: list[bytes], begins: float, results: Queue[Any]) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = client_context(roots)

    async def all_of_them() -> list[tuple[float, list[int]]]:
        await asyncio.sleep(begins - time.time())
        return await asyncio.gather(*(agent(port, context, order, begins) for order in orders))

    results.put(asyncio.run(all_of_them()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    mint = TokenMint()
    results: Queue[Any] = multiprocessing.get_context("fork").Queue()
    with tempfile.TemporaryDirectory() as scratch, ApiServer(mint) as api, contextlib.ExitStack() as running:
        pods = [api.add_pod("default", f"pod-{n}", f"uid-{n}", f"account-{n % 50}") for n in range(options.agents)]
        orders = [request(mint.token("default", f"account-{n % 50}", pod)) for n, pod in enumerate(pods)]
        replicas = [
            running.enter_context(
                CaProcess(Path(scratch) / f"state-{n}", api, "--token-issuer-keys", "api", "--token-issuer", ISSUER)
            )
            for n in range(options.replicas)
        ]
        begins = time.time() + 3.0
        before = sum(cpu_seconds(each.process.pid) for each in replicas)
        workers = [
            multiprocessing.get_context("fork").Process(
                target=agents,
                args=(
                    replicas[n % len(replicas)].port,
                    replicas[n % len(replicas)].roots,
                    orders[n::PROCESSES],
                    begins,
                    results,
                ),
            )
            for n in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        told = [each for _ in workers for each in results.get()]
        for worker in workers:
            worker.join()
        cpu = sum(cpu_seconds(each.process.pid) for each in replicas) - before
    taken = sorted(seconds for seconds, _ in told)
    answers = [status for _, statuses in told for status in statuses]
    print(f"{len(taken)} agents at once, {options.replicas} replica(s): all have certificates after {taken[-1]:.1f} s")
    print(
        f"  p50 {taken[len(taken) // 2]:.1f} s, p99 {taken[len(taken) * 99 // 100]:.1f} s (to reach: the last in 30 s)"
    )
    kinds = ", ".join(f"{answers.count(kind)} x {kind or 'no answer'}" for kind in sorted(set(answers)))
    print(f"  answers: {kinds}; most that one asked: {max(len(each) for _, each in told)}")
    print(f"  CPU of the ca: {cpu / len(taken) * 1000:.1f} ms an agent, its connection and all refusals included")


if __name__ == "__main__":
    main()
