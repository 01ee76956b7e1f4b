"""ConfigMap istio-ca-root-cert in the namespaces whose pods mount it, kept right whatever happens to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ca.cluster import SETTLE_SECONDS
from ca.root_maps import NAME
from ca.secret_store import SecretStore
from ca.settings import CaSettings
from ca.trust import new_trust
from mesh.errors import NotFound
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import PASSPHRASE, ROOT_SECRET, Place, Replica, certificates_defined, place
from tests.support.waiting import wait_for

ANNOTATION = {"sidecar.istio.io/status": "{}"}


@pytest.fixture(scope="module")
def own(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with certificates_defined(api_server), place(api_server, tmp_path_factory.mktemp("ca")) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def replicas(own: Place) -> Iterator[list[Replica]]:
    """Two, which do the same work."""
    with own.replica() as first, own.replica("heddle-ca-1") as second:
        yield [first, second]


def root_map(own: Place, namespace: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = own.api.client.get(f"/api/v1/namespaces/{namespace}/configmaps/{NAME}")
    except NotFound:
        return None
    return found


def has_roots(own: Place, namespace: str) -> bool:
    found = root_map(own, namespace)
    return found is not None and found.get("data") == {"root-cert.pem": "".join(own.bundle()["roots"])}


@pytest.mark.parametrize("labels", [{"istio-injection": "enabled"}, {"istio.io/rev": "canary"}])
def test_a_labelled_namespace_has_it(own: Place, api_server: ApiServer, labels: dict[str, str]) -> None:
    with api_server.namespace(labels) as namespace:
        wait_for(lambda: has_roots(own, namespace))


def test_a_namespace_that_is_labelled_later_has_it_and_keeps_it(own: Place, api_server: ApiServer) -> None:
    with api_server.namespace() as namespace, api_server.namespace({"istio-injection": "enabled"}) as other:
        wait_for(lambda: has_roots(own, other))  # so that it would have been made here too
        assert root_map(own, namespace) is None
        path = f"/api/v1/namespaces/{namespace}"
        api_server.client.merge(path, {"metadata": {"labels": {"istio-injection": "enabled"}}})
        wait_for(lambda: has_roots(own, namespace))
        api_server.client.merge(path, {"metadata": {"labels": {"istio-injection": None}}})
        api_server.client.merge(f"{path}/configmaps/{NAME}", {"data": {"root-cert.pem": "changed"}})
        wait_for(lambda: has_roots(own, namespace))


def test_an_injected_pod_is_enough(own: Place) -> None:
    assert root_map(own, own.workloads) is None
    own.add_pod("plain")
    own.add_pod("injected", annotations=ANNOTATION)
    wait_for(lambda: has_roots(own, own.workloads))


def test_removed_or_changed_it_comes_back(own: Place, api_server: ApiServer) -> None:
    with api_server.namespace({"istio-injection": "enabled"}) as namespace:
        path = f"/api/v1/namespaces/{namespace}/configmaps/{NAME}"
        wait_for(lambda: has_roots(own, namespace))
        api_server.client.delete(path)
        wait_for(lambda: has_roots(own, namespace))
        api_server.client.merge(path, {"data": {"root-cert.pem": "-----BEGIN CERTIFICATE-----"}})
        wait_for(lambda: has_roots(own, namespace))
        api_server.client.merge(path, {"data": {"root-cert.pem": None}})
        wait_for(lambda: has_roots(own, namespace))


def test_two_replicas_write_once(own: Place, api_server: ApiServer) -> None:
    """The second one's write changes nothing, so that nobody who watches is told of it."""
    with api_server.namespace({"istio-injection": "enabled"}) as namespace:
        wait_for(lambda: has_roots(own, namespace))
        made = root_map(own, namespace)
        with api_server.namespace({"istio-injection": "enabled"}) as later:
            wait_for(lambda: has_roots(own, later))
        assert root_map(own, namespace) == made


def test_a_new_bundle_reaches_every_namespace_and_every_replica(
    own: Place, api_server: ApiServer, replicas: list[Replica]
) -> None:
    store = SecretStore(api_server.client, own.namespace, ROOT_SECRET)
    with api_server.namespace({"istio-injection": "enabled"}) as namespace:
        wait_for(lambda: has_roots(own, namespace))
        stored = store.read()
        assert stored is not None
        before = own.bundle()
        other = new_trust(PASSPHRASE.encode(), CaSettings(), 1_700_000_000).bundle.roots[0]
        bundle = {**before, "sequence": 2, "roots": [*before["roots"], other]}
        store.replace({**stored.documents, "bundle.json": json.dumps(bundle)}, stored.version)
        wait_for(lambda: has_roots(own, namespace))
        found = root_map(own, namespace)
        assert found is not None
        assert found["metadata"]["annotations"]["heddle.dev/bundle-sequence"] == "2"
        for replica in replicas:
            wait_for(lambda replica=replica: replica.request("GET", "/v1/bundle")[1]["sequence"] == 2)  # type: ignore[misc]


def test_a_root_that_somebody_removes_is_put_back(own: Place, api_server: ApiServer) -> None:
    before = own.bundle()
    path = f"/api/v1/namespaces/{own.namespace}/secrets/{ROOT_SECRET}"
    uid = api_server.client.get(path)["metadata"]["uid"]
    api_server.client.delete(path)

    def back() -> bool:
        try:
            return bool(api_server.client.get(path)["metadata"]["uid"] != uid)
        except NotFound:
            return False

    wait_for(back)
    assert own.bundle() == before


def test_a_replica_that_is_being_deleted_puts_nothing_back(own: Place, api_server: ApiServer) -> None:
    """As when Heddle is uninstalled: pods end some seconds after they were told to."""
    with api_server.namespace({"istio-injection": "enabled"}) as there:
        wait_for(lambda: has_roots(own, there))
        secret = f"/api/v1/namespaces/{own.namespace}/secrets/{ROOT_SECRET}"
        pods = f"/api/v1/namespaces/{own.namespace}/pods"
        for name in ("heddle-ca-0", "heddle-ca-1"):
            api_server.client.call("DELETE", f"{pods}/{name}", query={"gracePeriodSeconds": "60"})
        api_server.client.delete(secret)
        api_server.client.delete(f"/api/v1/namespaces/{there}/configmaps/{NAME}")
        time.sleep(SETTLE_SECONDS + 2)
        assert root_map(own, there) is None
        with pytest.raises(NotFound):
            api_server.client.get(secret)


# What a namespace that is on its way out, or a kind that was defined a moment ago, is answered with for a while.
PASSING = ("because it is being terminated", "404 page not found")


def test_nothing_was_refused_by_the_api_server(replicas: list[Replica]) -> None:
    """The rights suffice: what the API server refused would be in the log."""
    for replica in replicas:
        lines = [json.loads(line) for line in replica.log.read_text().splitlines()]
        errors = [line for line in lines if not any(words in line.get("error", "") for words in PASSING)]
        assert [line for line in errors if "forbidden" in json.dumps(line)] == []
        assert [line for line in errors if "error" in line and "will try again" not in line["event"]] == []
