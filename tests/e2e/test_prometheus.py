"""Prometheus (Debian's package), configured as the profile demo ships it, asks a whole running mesh.

Every query of every dashboard has an answer, and every alert has what it asks for.

Nothing finds pods here as Kubernetes' API does for Prometheus: what that would tell of them is given as fixed targets,
and everything that the configuration makes of it is as shipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from cli.mesh_access import Mesh
from install import files
from local.control_plane import PARTS
from local.network import NODE_ADDRESS
from tests.install.alert_rules import FILES, named, rules
from tests.install.dashboard_queries import queries, variables
from tests.support import scraper
from tests.support.local_mesh import HEDDLE, LocalMesh

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
PRODUCT = "/api/v1/products/0"
TRUST = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-"
EDGE = 'source_workload="productpage-v1",destination_workload="reviews-v1",response_code="200"'
OWN = {
    "source": f'istio_requests_total{{reporter="source",{EDGE}}}',
    "destination": f'istio_requests_total{{reporter="destination",{EDGE}}}',
    "error": 'istio_requests_total{destination_service_name="ratings",response_code="503",response_flags="FI"}',
    "tcp": 'istio_tcp_connections_opened_total{reporter="destination",destination_service_name="details-tcp"}',
}
ROUTING = """
---
apiVersion: v1
kind: Service
metadata: {name: details-tcp, namespace: bookinfo}
spec:
  selector: {app: details}
  ports: [{name: tcp-echo, port: 7070}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: bookinfo}
spec:
  hosts: [ratings]
  http:
    - fault: {abort: {percentage: {value: 100}, httpStatus: 503}}
      route: [{destination: {host: ratings}}]
"""
# Both end with their standard input.
ECHO = """
import select, socket, sys
with socket.create_server(("", 7070)) as listener:
    print("listening", flush=True)
    while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
        with listener.accept()[0] as taken:
            taken.sendall(taken.recv(100))
"""
SPEAK = """
import select, socket, sys
while not select.select([sys.stdin], [], [], 0.3)[0]:
    try:
        with socket.create_connection(("details-tcp", 7070), 5) as opened:
            opened.sendall(b"hello")
            opened.recv(100)
    except OSError:
        pass  # until the service is known
"""


def test_prometheus_as_shipped_answers_every_query(bookinfo: LocalMesh) -> None:
    asked = {query: query for query in (*queries(), *variables())}
    inputs = {name: name for rule in rules().values() for name in named(rule["expr"])}
    file = bookinfo.manifests / "routing.yaml"
    before = file.read_text()
    config = shipped(bookinfo)
    everyone = {"everyone": f"count(max_over_time(up[5m]) == 1) == {len(kept(config))}"}
    with (
        speaking(bookinfo),
        prometheus(bookinfo, {"config": config, "queries": {**OWN, **everyone, **asked, **inputs}}) as process,
    ):
        assert process.stdout
        assert process.stdout.readline() == "scraped\n"
        try:
            bookinfo.change("routing.yaml", before + ROUTING)
            bookinfo.inside("details-v1", "heddle-agent", "renew", container="istio-proxy")
            while process.poll() is None:
                for reader in ({}, {"end-user": "jason"}):
                    bookinfo.get(PRODUCT, reader)
                time.sleep(0.05)  # the processors are Prometheus', too
            found = json.loads(process.stdout.read())
        finally:
            bookinfo.change("routing.yaml", before)
            bookinfo.settle()

    answers = found["answers"]
    assert [name for name, answer in answers.items() if not answer] == []
    assert found["rules"].keys() >= rules().keys()
    assert set(found["rules"].values()) == {"ok"}
    assert found["firing"] == []
    for side, policy in (("source", "unknown"), ("destination", "mutual_tls")):
        (edge,) = answers[side]
        expected = {
            "source_principal": TRUST + "productpage",
            "destination_principal": TRUST + "reviews",
            "destination_service": "reviews.bookinfo.svc.cluster.local",
            "connection_security_policy": policy,
            "namespace": "bookinfo",
        }
        assert edge["metric"].items() >= expected.items()


def shipped(mesh: LocalMesh) -> dict[str, Any]:
    """The configuration of manifests/addons, with pods that are told instead of found, and asked more often."""
    (raw,) = [
        each
        for each in files.folder("addons")
        if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", "prometheus")
    ]
    config: dict[str, Any] = yaml.safe_load(raw["data"]["prometheus.yml"])
    config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
    config["rule_files"] = list(map(str, FILES))
    (job,) = config["scrape_configs"]
    del job["kubernetes_sd_configs"]
    pods = [discovered(pod) for pod in Mesh(mesh.state).get("/objects/Pod")["items"]]
    # The parts of the control plane are processes here; as pods they have these annotations (manifests/base).
    parts = [labels("istio-system", part.account, NODE_ADDRESS, str(part.health_port), "/metrics") for part in PARTS]
    job["static_configs"] = [{"targets": ["pod"], "labels": each} for each in (*pods, *parts)]
    return config


def kept(config: dict[str, Any]) -> list[dict[str, str]]:
    """The labels of pods that ask to be asked."""
    (job,) = config["scrape_configs"]
    wish = "__meta_kubernetes_pod_annotation_prometheus_io_scrape"
    return [each["labels"] for each in job["static_configs"] if each["labels"].get(wish) == "true"]


def discovered(pod: dict[str, Any]) -> dict[str, str]:
    meta, address = pod["metadata"], pod["status"].get("podIP", "")
    said = meta.get("annotations") or {}
    if said.get("prometheus.io/scrape") != "true":
        return {"__meta_kubernetes_namespace": meta["namespace"], "__meta_kubernetes_pod_ip": address}
    return labels(meta["namespace"], meta["name"], address, said["prometheus.io/port"], said["prometheus.io/path"])


def labels(namespace: str, name: str, address: str, port: str, path: str) -> dict[str, str]:
    """What Prometheus' discovery tells of a pod (its page "Configuration", kubernetes_sd_config, role pod)."""
    return {
        "__meta_kubernetes_namespace": namespace,
        "__meta_kubernetes_pod_name": name,
        "__meta_kubernetes_pod_ip": address,
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_label_app": name.partition("-v")[0],
        "__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true",
        "__meta_kubernetes_pod_annotation_prometheus_io_port": port,
        "__meta_kubernetes_pod_annotation_prometheus_io_path": path,
    }


@contextmanager
def prometheus(mesh: LocalMesh, order: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """In the one pod that is not in the mesh, from where Prometheus asks, too."""
    with running(mesh, "outside/legacy", "-P", scraper.__file__, json.dumps(order)) as process:
        yield process


@contextmanager
def speaking(mesh: LocalMesh) -> Iterator[None]:
    """Connections that are no HTTP, from one pod to another."""
    with running(mesh, "details-v1", "-c", ECHO) as server:
        assert server.stdout
        assert server.stdout.readline() == "listening\n"
        with running(mesh, "productpage", "-c", SPEAK):
            yield


@contextmanager
def running(mesh: LocalMesh, pod: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Python in a pod, until its standard input ends."""
    argv = [HEDDLE, "local", "exec", pod, "--", sys.executable, *arguments]
    environment = {**os.environ, "HEDDLE_STATE": str(mesh.state)}
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(60)
