"""The TrustDomain object at a real API server: made by the ca, brought up to date as a rotation goes on, put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml

from mesh.errors import NotFound
from serving.operator_socket import ask
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import CRD_FILES, CRDS, Place, certificates_defined, place
from tests.support.waiting import wait_for

NAME = "trustdomains.heddle.dev"
OBJECT = "/apis/heddle.dev/v1/trustdomains/cluster.local"


@pytest.fixture(scope="module")
def own(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    defined = yaml.safe_load((CRD_FILES / "trustdomain.yaml").read_text())
    with suppress(NotFound):
        api_server.client.delete(f"{CRDS}/{NAME}")
    wait_for(lambda: found(api_server, f"{CRDS}/{NAME}") is None)
    api_server.client.post(CRDS, defined)
    wait_for(lambda: found(api_server, OBJECT.rpartition("/")[0]) is not None)
    try:
        with certificates_defined(api_server), place(api_server, tmp_path_factory.mktemp("ca")) as made:
            yield made
    finally:
        api_server.client.delete(f"{CRDS}/{NAME}")


def found(api: ApiServer, path: str) -> dict[str, Any] | None:
    with suppress(NotFound):
        answer: dict[str, Any] = api.client.get(path)
        return answer
    return None


def status(api: ApiServer) -> dict[str, Any]:
    return ((found(api, OBJECT) or {}).get("status")) or {}


def test_it_is_told_how_far_a_rotation_is(own: Place) -> None:
    api = own.api
    operators = own.directory / "o.sock"
    with own.replica("heddle-ca-0", "--operator-socket", str(operators)):
        wait_for(lambda: status(api).get("phase") == "idle", looks=1500)
        there = found(api, OBJECT)
        assert there is not None
        assert there["spec"] == {"trustDomain": "cluster.local"}
        told = status(api)
        assert (told["sequence"], [root["role"] for root in told["roots"]]) == (1, ["active"])

        api.client.delete(OBJECT)
        own.add_pod("waits", annotations={"sidecar.istio.io/status": "{}"})
        proxy = {"name": "istio-proxy", "image": "i", "imageID": "i", "ready": True, "restartCount": 0}
        running = {**proxy, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        path = f"/api/v1/namespaces/{own.workloads}/pods/waits/status"
        api.client.merge(path, {"status": {"containerStatuses": [running]}})
        answered, body = ask("/v1/rotation", str(operators), "POST", b'{"do": "start"}')
        assert answered == 200, body
        wait_for(lambda: status(api).get("phase") == "distribute", looks=1500)
        told = status(api)
        assert told["sequence"] == 2
        assert sorted(root["role"] for root in told["roots"]) == ["active", "incoming"]
        assert told["activeRoot"] != told["otherRoot"] != ""
        assert f"{own.workloads}/waits" in told["missing"]
