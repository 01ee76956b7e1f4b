"""A test cluster for a person: `make cluster`, or `.venv/bin/python -m tests.cluster.up [--api-only]`.

It stays until Ctrl-C, and then nothing of it is left.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading

from tests.cluster import api_server, cluster, missing
from tests.cluster.image_builds import BuildFailed
from tests.cluster.processes import ComponentFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cluster", description="Start a Kubernetes cluster and keep it running.")
    parser.add_argument("--api-only", action="store_true", help="the API server and its controllers, without a node")
    chosen = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        if not chosen.api_only:
            cluster.requirements()
        with api_server.running() if chosen.api_only else cluster.running() as server:
            print("The cluster runs until Ctrl-C. In another terminal:")
            print(f"  export KUBECONFIG={server.kubeconfig}\n", flush=True)
            ended.wait()
    except (missing.Missing, ComponentFailed, BuildFailed, subprocess.CalledProcessError) as error:
        print(f"The cluster cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
