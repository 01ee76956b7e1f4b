"""A test cluster for a person: `make cluster`, or `.venv/bin/python -m tests.cluster.up [--api-only | --two-nodes]`.

It stays until Ctrl-C, and then nothing of it is left.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tests.cluster import api_server, cluster, missing
from tests.cluster.api_server import ApiServer
from tests.cluster.image_builds import BuildFailed
from tests.cluster.processes import ComponentFailed
from tests.cluster.second_node import second_node


@contextmanager
def started(chosen: argparse.Namespace) -> Iterator[ApiServer]:
    if chosen.api_only:
        with api_server.running() as server:
            yield server
        return
    cluster.requirements()
    with cluster.running() as made, second_node(made) if chosen.two_nodes else nullcontext():
        yield made


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cluster", description="Start a Kubernetes cluster and keep it running.")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--api-only", action="store_true", help="the API server and its controllers, without a node")
    extent.add_argument("--two-nodes", action="store_true", help="a node more, as for a drain")
    chosen = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        with started(chosen) as server:
            print("The cluster runs until Ctrl-C. In another terminal:")
            print(f"  export KUBECONFIG={server.kubeconfig}\n", flush=True)
            ended.wait()
    except (missing.Missing, ComponentFailed, BuildFailed, subprocess.CalledProcessError) as error:
        print(f"The cluster cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
