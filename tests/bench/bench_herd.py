"""Agents that all start at once, at one ca with its default limits: `python tests/bench/bench_herd.py [--agents N]`.

Each has its own token, key, TLS connection and backoff (`tests/ca/herd.py`). Prints when the last has its certificate,
and how many were told to come again. Client and ca share the machine's cores, and most of the time goes into the
clients' keys and handshakes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.ca.harness import ApiServer, CaProcess, TokenMint
from tests.ca.herd import herd, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32)
    options = parser.parse_args()
    mint = TokenMint()
    with (
        ApiServer(mint) as api,
        tempfile.TemporaryDirectory() as scratch,
        CaProcess(Path(scratch) / "state", api, "--token-issuer-keys", "api") as ca,
    ):
        agents = herd(api, mint, options.agents)
        began = time.monotonic()
        run(agents, ca.address, ca.roots, options.at_once)
        seconds = sorted(agent.done - began for agent in agents)
    again = sum(len(agent.times) > 1 for agent in agents)
    print(f"{len(agents)} agents: last after {seconds[-1]:.1f} s, half after {statistics.median(seconds):.1f} s")
    print(f"told to come again: {again}; most attempts of one: {max(len(agent.times) for agent in agents)}")


if __name__ == "__main__":
    main()
