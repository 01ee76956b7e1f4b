"""`heddle-node`: the node agent, one on each node (manifests/node/)."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from kube.client import connect
from kube.source import Source, Watched, list_path
from mesh.errors import HeddleError, InvalidInput
from mesh.ports import CONTROL_METRICS
from node.agent import Agent, Place
from node.events import Reporter
from node.pods import POD, GatedPods
from node.schedule import Visit
from node.visit import Outcome
from serving.health import create_health_app, serve_in_threads
from serving.logs import configure
from serving.options import address

log = structlog.get_logger("node")


def main(arguments: list[str] | None = None) -> int:
    """Work until a signal; 2 when what was asked for is wrong."""
    configure()
    logging.getLogger("netfilter").setLevel(logging.WARNING)  # says things of "this pod", without its name
    options = _parser().parse_args(arguments)
    try:
        place = _place(options)
        listen = address(options.metrics_listen, "--metrics-listen")
        client = connect(options.kube_api)
    except HeddleError as error:
        log.error("cannot start", error=str(error))
        return 2
    excluded = frozenset(name for name in options.exclude_namespaces.split(",") if name)
    pods = GatedPods(options.node, excluded)
    source = Source(
        [Watched(POD, list_path("", "v1", "pods"), {"fieldSelector": f"spec.nodeName={options.node}"})], client
    )
    reporter = Reporter(options.node, client, time.time)
    registry = CollectorRegistry()
    agent = Agent(place, pods, _told(reporter, registry), time.monotonic)
    Gauge("heddle_node_pods_waiting", "Pods of this node whose gate waits", registry=registry).set_function(
        pods.waiting
    )

    def not_ready() -> str:
        if not source.synced():
            return "the pods of this node are not known yet: " + "; ".join(map(str, source.troubles().values()))
        return agent.not_ready()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    source.start(pods.on_event)
    health = create_health_app(
        "node",
        lambda: generate_latest(registry),
        not_ready,
    )
    serve_in_threads(listen, health)
    log.info("at work", node=options.node, namespaces=str(place.namespaces), excluded=sorted(excluded))
    agent.run(source.synced)
    return 0


def _told(reporter: Reporter, registry: CollectorRegistry) -> Callable[[Outcome], None]:
    """What to do with the outcome of a visit: log, count, and an event when the pod cannot start because of it."""
    visits = Counter("heddle_node_visits", "Gates that were met, by what came of it", ["outcome"], registry=registry)
    for each in (Visit.WRITTEN, Visit.FAILED):
        visits.labels(each.value)

    def told(outcome: Outcome) -> None:
        visits.labels(outcome.visit.value).inc()
        about = str(outcome.pod) if outcome.pod else ""
        if outcome.visit is Visit.WRITTEN:
            log.info("rules written", pod=about)
        elif outcome.passing:
            log.info("not yet", pod=about, error=outcome.error)
        else:
            log.warning("no rules", pod=about, error=outcome.error)
            if outcome.pod:
                reporter.failed(outcome.pod, outcome.error)

    return told


def _place(options: argparse.Namespace) -> Place:
    if not options.node:
        raise InvalidInput("the node's name is not known", field="--node", hint="set NODE_NAME from spec.nodeName")
    try:
        host = str(ipaddress.ip_address(options.host_address))
    except ValueError:
        hint = "set HOST_IP from status.hostIP"
        raise InvalidInput(f"{options.host_address!r} is not an address", field="--host-address", hint=hint) from None
    return Place(options.namespaces, host)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="heddle-node", description="Writes the interception rules of pods that may not do it themselves"
    )
    add = parser.add_argument
    environment = os.environ
    add("--node", default=environment.get("NODE_NAME", ""), help="name of this node; by default $NODE_NAME")
    add(
        "--host-address",
        default=environment.get("HOST_IP", ""),
        help="an address of this node, by which its own network is told from those of pods; by default $HOST_IP",
    )
    add("--namespaces", type=Path, default=Path("/run/netns"), help="where the runtime keeps pods' network namespaces")
    add("--exclude-namespaces", default="", help="Kubernetes namespaces whose pods are left alone, a,b,c")
    add("--metrics-listen", default=f"0.0.0.0:{CONTROL_METRICS}", help="address of /metrics, /healthz and /readyz")
    add("--kube-api", default="", help="URL of the API server; otherwise that of the cluster or of KUBECONFIG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
