"""The bootstrap is read strictly, and by real Envoy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import orjson
import pytest

from agent.bootstrap import bootstrap, environment
from mesh.envoy_binary import find_envoy
from mesh.errors import MissingPrerequisite
from mesh.workloads import workload_of
from tests.support.ports import free_port
from tests.support.protos import parse


@pytest.mark.parametrize("ips", [["10.1.2.3"], ["fd00::5"], ["10.1.2.3", "fd00::5"]])
def test_envoy_takes_it(ips: list[str], tmp_path: Path) -> None:
    made = bootstrap(
        namespace="default", pod="reviews-v1", ips=ips, socket=str(tmp_path / "a.sock"),
        workload=workload_of("reviews-v1", "default", {}),
        admin_port=free_port(), stats_port=free_port(), buckets={"istiocustom": [0.5, 1, 10]},
        runtime={"re2.max_program_size.error_level": "200", "envoy.features.x": "true"},
    )  # fmt: skip
    parse(made, "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap")
    assert made["node"]["id"] == f"sidecar~{ips[0]}~reviews-v1.default~default.svc.cluster.local"
    path = tmp_path / "envoy.json"
    path.write_bytes(orjson.dumps(made))
    subprocess.run(
        [find_envoy(""), "--mode", "validate", "-c", str(path)], check=True, capture_output=True, timeout=120
    )


def test_what_spans_say_of_their_source_stands_beside_what_the_pod_says() -> None:
    workload = workload_of("reviews-v1", "default", {"app": "reviews"})
    said = "service.name=reviews.default,k8s.namespace.name=default"
    tags = {
        "HEDDLE_NAMESPACE": "default",
        "HEDDLE_CANONICAL_SERVICE": "reviews",
        "HEDDLE_CANONICAL_REVISION": "latest",
    }
    assert environment(workload, {"A": "b"}) == {"A": "b", **tags, "OTEL_RESOURCE_ATTRIBUTES": said}
    found = environment(workload, {"OTEL_RESOURCE_ATTRIBUTES": "c=d"})
    assert found == {**tags, "OTEL_RESOURCE_ATTRIBUTES": f"{said},c=d"}


def test_a_missing_envoy_is_named() -> None:
    with pytest.raises(MissingPrerequisite, match="/nowhere/envoy"):
        find_envoy("/nowhere/envoy")
