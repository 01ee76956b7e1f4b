"""Two real Envoys and the agents' view of their statistics: what a request and a connection make of Istio's metrics.

No interception here: listeners are bound to loopback ports.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from agent.http_server import serve_tcp
from agent.istio_metrics import IstioMetrics
from agent.metrics import Metrics
from discovery.envoy.render import render
from discovery.plan.reporting import MetricName
from mesh import sds
from mesh.workloads import PEER_HEADER, PEER_METADATA, Workload
from tests.support import envoy, http, plans, scraper
from tests.support.certificates import Authority
from tests.support.echo import EchoApp
from tests.support.ports import free_port
from tests.support.waiting import wait_for

TRUST = "spiffe://cluster.local/ns/default/sa/"
CLIENT = Workload("client-v2", "default", "client", "v2", "client", "v2")
SERVER = Workload("server-v1", "default", "server", "v1", "server", "v1")
HOST = "server.default.svc.cluster.local"
ALL = [{"name": name} for name in MetricName]
REPORTING = {"client_metrics": ALL, "server_metrics": ALL}
SERVICE = {
    "destination_service": HOST,
    "destination_service_name": "server",
    "destination_service_namespace": "default",
}


def _labels(side: str, workload: Workload | None) -> dict[str, str]:
    if workload is None:
        names = ("workload", "workload_namespace", "canonical_service", "canonical_revision", "app", "version")
        return {f"{side}_{name}": "unknown" for name in names}
    return {
        f"{side}_workload": workload.name,
        f"{side}_workload_namespace": workload.namespace,
        f"{side}_canonical_service": workload.service,
        f"{side}_canonical_revision": workload.revision,
        f"{side}_app": workload.app,
        f"{side}_version": workload.version,
    }


Series = tuple[str, dict[str, str], float]


def read(text: str, own: Workload) -> list[Series]:
    """What the agent of `own` makes of Envoy's exposition: name, labels, value of Istio's metrics."""
    rewrite = IstioMetrics(own).rewriter()
    lines = "".join(rewrite(line.encode() + b"\n").decode() for line in text.splitlines()) + rewrite(b"").decode()
    found = re.findall(r"^(istio_\w+)\{(.*)\} (\S+)$", lines, re.MULTILINE)
    return [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for name, labels, value in found]


@dataclass(frozen=True)
class Pair:
    client: envoy.RunningEnvoy
    server: envoy.RunningEnvoy
    ports: dict[str, int]

    def of(self, side: str, name: str) -> list[Series]:
        running, own = (self.client, CLIENT) if side == "source" else (self.server, SERVER)
        found = read(running.admin("/stats/prometheus"), own)
        return [each for each in found if each[0] == f"istio_{name}" and each[1]["reporter"] == side]

    def eventually(self, side: str, name: str, **labels: str) -> tuple[dict[str, str], float]:
        """The labels and value of the series with `labels`."""

        def matching() -> list[Series]:
            return [each for each in self.of(side, name) if each[1].items() >= labels.items()]

        wait_for(lambda: bool(matching()))
        ((_, found, value),) = matching()
        return found, value


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    authority = Authority()
    with EchoApp("app") as app:
        inbound = {"web": free_port(), "tcp": free_port(), "plain": free_port()}
        serving = envoy.bind_listeners(
            _server(authority, app.port, inbound), {"virtualInbound": list(inbound.values())}
        )
        outbound = {name: free_port() for name in inbound}
        listeners = {f"out-{name}": [port] for name, port in outbound.items()}
        asking = envoy.bind_listeners(_client(authority, inbound), listeners)
        with (
            envoy.RunningEnvoy(serving, tmp_path_factory.mktemp("server")) as server,
            envoy.RunningEnvoy(asking, tmp_path_factory.mktemp("client")) as client,
        ):
            yield Pair(client, server, {**outbound, "direct": inbound["plain"]})


def _bootstrap(fields: dict[str, Any], authority: Authority, account: str, own: Workload) -> dict[str, Any]:
    svid = authority.issue(uri=TRUST + account)
    secrets = [
        sds.tls_secret(sds.DEFAULT, svid.chain_pem, svid.key_pem),
        sds.validation_secret(sds.ROOTCA, [authority.root_pem]),
    ]
    made = envoy.static_bootstrap(render(plans.plan({**fields, "reporting": REPORTING})), secrets, free_port())
    made["node"]["metadata"] = {PEER_METADATA: own.packed}
    return made


def _server(authority: Authority, app: int, ports: dict[str, int]) -> dict[str, Any]:
    def name(port: int) -> str:
        return f"inbound|{port}||"

    http_ports = {ports["web"], ports["plain"]}
    fields = {
        "inbound": [
            {
                "port": port,
                "protocol": "http" if port in http_ports else "tcp",
                "peer_tls": "DISABLE" if port == ports["plain"] else "STRICT",
                "destination": name(port),
                "route_table": name(port) if port in http_ports else "",
            }
            for port in ports.values()
        ],
        "destinations": [
            {
                "name": name(port),
                "resolution": "local",
                "protocol": "http" if port in http_ports else "tcp",
                "host": HOST,
                "service": "default/server",
                "address": "127.0.0.1",
                "port": app,
            }
            for port in ports.values()
        ],
        "route_tables": [_table(name(port), name(port)) for port in http_ports],
    }
    return _bootstrap(fields, authority, "server", SERVER)


def _client(authority: Authority, ports: dict[str, int]) -> dict[str, Any]:
    def endpoint(name: str) -> dict[str, Any]:
        parts = ("name", "namespace", "service", "revision", "app", "version")
        reported = {part: getattr(SERVER, part) for part in parts}
        return {"address": "127.0.0.1", "port": ports[name], "mesh_tls": name != "plain", "reported": reported}

    fields = {
        "outbound": [
            {"name": "out-web", "address": "0.0.0.0", "port": 80, "protocol": "http", "route_table": "web"},
            {"name": "out-plain", "address": "0.0.0.0", "port": 81, "protocol": "http", "route_table": "plain"},
            {
                "name": "out-tcp",
                "address": "10.0.0.1",
                "port": 82,
                "protocol": "tcp",
                "targets": [{"destination": "tcp"}],
            },
        ],
        "route_tables": [_table(name, name) for name in ("web", "plain")],
        "destinations": [
            {
                "name": name,
                "resolution": "endpoints",
                "protocol": "tcp" if name == "tcp" else "http",
                "host": HOST,
                "service": "default/server",
                "tls": {"mode": "ISTIO_MUTUAL", "automatic": True},
            }
            for name in ports
        ],
        "endpoints": [{"name": name, "endpoints": [endpoint(name)]} for name in ports],
    }
    return _bootstrap(fields, authority, "client", CLIENT)


def _table(name: str, destination: str) -> dict[str, Any]:
    route = {"name": "default", "match": {}, "targets": [{"destination": destination}]}
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


def test_both_ends_report_a_request(pair: Pair) -> None:
    answer = http.get(pair.ports["web"], headers={PEER_HEADER: "forged~by~the~app~~"})
    assert answer.status == 200
    assert PEER_HEADER not in answer.json["headers"]
    request = {"response_code": "200", "response_flags": "-", "request_protocol": "http", "grpc_response_status": ""}
    ends = {**_labels("source", CLIENT), **_labels("destination", SERVER), **SERVICE}
    principals = {"source_principal": TRUST + "client", "destination_principal": TRUST + "server"}
    for side, policy in (("source", "unknown"), ("destination", "mutual_tls")):
        labels, count = pair.eventually(side, "requests_total", source_principal=TRUST + "client")
        expected = {"reporter": side, "connection_security_policy": policy}
        assert labels == {**expected, **ends, **principals, **request}
        assert count == 1
        for histogram in ("request_duration_milliseconds", "request_bytes", "response_bytes"):
            for part in ("_count", "_sum"):
                assert pair.eventually(side, histogram + part, **labels)[0] == labels
            buckets = [each for each in pair.of(side, histogram + "_bucket") if each[1].items() >= labels.items()]
            assert {each[1].keys() - labels.keys() == {"le"} for each in buckets} == {True}


def test_an_endpoint_outside_the_mesh_is_not_told_who_asks(pair: Pair) -> None:
    assert http.get(pair.ports["plain"]).status == 200
    labels, _ = pair.eventually("source", "requests_total", destination_principal="unknown")
    assert labels.items() >= {**_labels("source", CLIENT), **_labels("destination", SERVER)}.items()
    labels, _ = pair.eventually("destination", "requests_total", connection_security_policy="none")
    assert labels.items() >= _labels("source", None).items()


def test_without_mutual_tls_nobody_is_believed(pair: Pair) -> None:
    answer = http.get(pair.ports["direct"], headers={PEER_HEADER: SERVER.packed})
    assert PEER_HEADER not in answer.json["headers"]
    labels, _ = pair.eventually("destination", "requests_total", connection_security_policy="none")
    assert labels.items() >= {**_labels("source", None), "source_principal": "unknown"}.items()


def test_both_ends_report_a_connection(pair: Pair) -> None:
    request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", pair.ports["tcp"]), 10) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    for side, policy, source in (("source", "unknown", CLIENT), ("destination", "mutual_tls", None)):
        expected = {
            "reporter": side,
            "request_protocol": "tcp",
            "response_flags": "-",
            "connection_security_policy": policy,
            "source_principal": TRUST + "client",
            "destination_principal": TRUST + "server",
            **_labels("source", source),
            **_labels("destination", SERVER),
            **SERVICE,
        }
        values = {
            "tcp_connections_opened_total": 1,
            "tcp_connections_closed_total": 1,
            "tcp_sent_bytes_total": len(answer),
            "tcp_received_bytes_total": len(request),
        }
        assert {name: pair.eventually(side, name) for name in values} == {
            name: (expected, value) for name, value in values.items()
        }


@contextmanager
def agent(running: envoy.RunningEnvoy, own: Workload) -> Iterator[int]:
    """The port of an agent's metrics, of an Envoy with `own` for its workload."""
    metrics = Metrics(lambda: "", running.admin_port, None, "127.0.0.1", own)
    port, loop = free_port(), asyncio.new_event_loop()
    server = loop.run_until_complete(serve_tcp(("127.0.0.1",), port, metrics.answer))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_prometheus_reads_both_ends(pair: Pair) -> None:
    """That of Debian's package."""
    assert http.get(pair.ports["web"]).status == 200
    edge = 'source_workload="client-v2",destination_workload="server-v1",source_principal!="unknown"'
    queries = {side: f'istio_requests_total{{reporter="{side}",{edge}}}' for side in ("source", "destination")}
    bucket = f'istio_request_duration_milliseconds_bucket{{reporter="destination",{edge}}}'
    queries["p50"] = f"histogram_quantile(0.5, sum({bucket}) by (le))"
    with agent(pair.client, CLIENT) as client, agent(pair.server, SERVER) as server:
        targets = [(f"127.0.0.1:{port}", "/stats/prometheus") for port in (client, server)]
        order = json.dumps({"config": scraper.config_of(targets), "queries": queries})
        command = [sys.executable, "-m", scraper.__name__, order]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout.splitlines()[1])["answers"]
    for side, policy in (("source", "unknown"), ("destination", "mutual_tls")):
        ((labels, (_, count)),) = [(each["metric"], each["value"]) for each in found[side]]
        assert int(count) >= 1
        assert labels["connection_security_policy"] == policy
        assert labels.items() >= {**_labels("source", CLIENT), **_labels("destination", SERVER), **SERVICE}.items()
    assert float(found["p50"][0]["value"][1]) > 0
