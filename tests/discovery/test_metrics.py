"""Discovery's metrics under istiod's names and labels."""

from __future__ import annotations

import pytest

from discovery.metrics import VERSION, Metrics
from discovery.versions import Delta
from kube.source import Changed, Listed, Progress
from tests.support.snapshots import snapshot


def lines(metrics: Metrics, start: str) -> set[str]:
    return {line for line in metrics.text().decode().splitlines() if line.startswith(start)}


def test_types_of_resources_are_istios() -> None:
    metrics = Metrics()
    entries = {"a": ("1", b"12345"), "b": ("2", b"1")}
    metrics.pushed(Delta({"routes": entries, "virtualHosts": entries}, {"listeners": ("gone",)}))
    metrics.rejected("virtualHosts")
    pushes = {"cds": 0, "eds": 0, "lds": 1, "rds": 1, "sds": 0}
    assert lines(metrics, "pilot_xds_pushes{") == {f'pilot_xds_pushes{{type="{k}"}} {v}.0' for k, v in pushes.items()}
    assert 'pilot_total_xds_rejects{type="rds"} 1.0' in lines(metrics, "pilot_total_xds_rejects{")
    sizes = lines(metrics, "pilot_xds_config_size_bytes_sum")
    assert sizes == {
        'pilot_xds_config_size_bytes_sum{type="rds"} 12.0',
        'pilot_xds_config_size_bytes_sum{type="lds"} 0.0',
    }


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Changed("VirtualService", {}, False, 1, created=True), 'cfg_events{event="add",type="VirtualService"} 1.0'),
        (Changed("VirtualService", {}, False, 1), 'cfg_events{event="update",type="VirtualService"} 1.0'),
        (Changed("Pod", {}, True, 1), 'reg_events{event="delete",type="Pods"} 1.0'),
        (Listed("EndpointSlice", (), 1), 'reg_events{event="list",type="EndpointSlice"} 1.0'),
    ],
)
def test_events(event: Changed | Listed, line: str) -> None:
    metrics = Metrics()
    metrics.event(event)
    assert lines(metrics, "pilot_k8s_cfg_events{") | lines(metrics, "pilot_k8s_reg_events{") == {f"pilot_k8s_{line}"}


def test_a_bookmark_is_no_event() -> None:
    metrics = Metrics()
    metrics.event(Progress("Pod", 7))
    assert not lines(metrics, "pilot_k8s_reg_events{")


def test_a_snapshot_is_triggered_by_what_changed() -> None:
    metrics = Metrics()
    metrics.published({"VirtualService", "Gateway", "Pod"}, 0.002, 0.001)
    found = {'pilot_push_triggers{type="config"} 1.0', 'pilot_push_triggers{type="endpoint"} 1.0'}
    assert lines(metrics, "pilot_push_triggers{") == found


def test_proxies_by_version_also_when_there_are_none() -> None:
    metrics = Metrics()
    assert lines(metrics, "pilot_xds{") == {f'pilot_xds{{version="{VERSION}"}} 0.0'}
    metrics.connected(lambda: [VERSION, "0.0.9", "0.0.9"])
    assert lines(metrics, "pilot_xds{") == {
        f'pilot_xds{{version="{VERSION}"}} 1.0',
        'pilot_xds{version="0.0.9"} 2.0',
    }


OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec: {hosts: [one.example, two.example], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}
"""


def test_what_is_known_counts_hosts_of_service_entries() -> None:
    metrics, known = Metrics(), snapshot(OBJECTS)
    metrics.known(lambda: None)
    assert lines(metrics, "pilot_services") == {"pilot_services 0.0"}
    metrics.known(lambda: known)
    assert lines(metrics, "pilot_services") == {"pilot_services 3.0"}
    assert lines(metrics, "pilot_virt_services") == {"pilot_virt_services 1.0"}


def test_what_cannot_be_computed_is_counted() -> None:
    metrics = Metrics()
    metrics.compiled(0.01, failed=False)
    assert lines(metrics, "pilot_total_xds_internal_errors") == {"pilot_total_xds_internal_errors 0.0"}
    metrics.compiled(0.01, failed=True)
    assert lines(metrics, "pilot_total_xds_internal_errors") == {"pilot_total_xds_internal_errors 1.0"}
