"""Many agents at once: each gets its certificate as a real one would, with a token, a connection and backoff."""

from __future__ import annotations

import heapq
import random
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from svid import schedule
from svid.client import CaAddress, Refused, Token, fetch
from svid.material import SvidMaterial
from svid.request import new_key_request
from tests.ca.harness import ApiServer, TokenMint


@dataclass
class Agent:
    """`times`: when it asked (monotonic), and what it was told to wait after that; `done`: when it had its SVID."""

    name: str
    token: Token
    attempts: schedule.Attempts = field(default_factory=schedule.Attempts)
    times: list[tuple[float, float]] = field(default_factory=list)
    svid: SvidMaterial | None = None
    done: float = 0.0


def herd(api: ApiServer, mint: TokenMint, count: int) -> list[Agent]:
    """Agents of so many pods, each with its token."""
    agents = []
    for n in range(count):
        pod = api.add_pod("herd", f"pod-{n}", f"uid-{n}", f"account-{n % 50}")
        agents.append(Agent(pod.name, Token(mint.token("herd", f"account-{n % 50}", pod))))
    return agents


def run(agents: list[Agent], ca: CaAddress, roots: str, at_once: int = 16) -> None:
    """Until each has its certificate. Between attempts they wait as `svid.schedule` says."""
    due = [(0.0, n) for n in range(len(agents))]
    under_way: set[Future[int]] = set()
    with ThreadPoolExecutor(at_once) as pool:
        while due or under_way:
            now = time.monotonic()
            while due and due[0][0] <= now and len(under_way) < at_once:
                under_way.add(pool.submit(_attempt, agents, heapq.heappop(due)[1], ca, roots))
            if not under_way:
                time.sleep(due[0][0] - now)
                continue
            done, under_way = wait(under_way, 0.05, FIRST_COMPLETED)
            for one in done:
                agent = agents[one.result()]
                if agent.svid is None:
                    heapq.heappush(due, (agent.attempts.not_before, one.result()))


def _attempt(agents: list[Agent], n: int, ca: CaAddress, roots: str) -> int:
    agent, began = agents[n], time.monotonic()
    try:
        agent.svid = fetch(ca, roots, new_key_request(), agent.token)
        agent.times.append((began, 0.0))
    except Refused as error:
        if error.status != 429:
            raise
        agent.times.append((began, error.retry_after))
        agent.attempts = schedule.after_failure(agent.attempts, time.monotonic(), random.random(), error.retry_after)
    agent.done = time.monotonic()
    return n
