"""Discovery on a cluster: a real API server and its controllers; discovery runs with its own rights and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.gateway_secrets import grant
from tests.cluster.api_server import ApiServer
from tests.cluster.discovery_place import PODS, SERVICES, Follower, Place, place, virtual_service
from tests.cluster.rights import denied, uses
from tests.discovery.harness import DiscoveryProcess
from tests.support.certificates import Authority
from tests.support.waiting import wait_for

VIRTUAL_SERVICES = "/apis/networking.istio.io/{}/namespaces/{{}}/virtualservices/{}"


@pytest.fixture(scope="module")
def own(module_api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(module_api_server, tmp_path_factory.mktemp("discovery")) as made:
        yield made


@pytest.fixture(scope="module")
def discovery(own: Place) -> Iterator[DiscoveryProcess]:
    with DiscoveryProcess(own.kubeconfig, own.directory) as running:
        yield running


@pytest.fixture(scope="module")
def client(own: Place, discovery: DiscoveryProcess) -> Follower:
    return Follower(own.agent(discovery, own.pod("client")), own.namespace)


def test_its_own_rights_are_enough(own: Place, discovery: DiscoveryProcess, client: Follower) -> None:
    client.poll()
    # A kind that was only just defined may be unknown to the API server once more; it is looked for again.
    wait_for(lambda: not [each for each in discovery.status()["problems"] if each["namespace"] != own.namespace])
    status = discovery.status()
    assert [each["pod"] for each in status["proxies"] if each["namespace"] == own.namespace] == ["client"]


def test_endpoints_follow_readiness_and_termination(own: Place, client: Follower) -> None:
    own.service("shop")
    one, other = (own.pod(f"shop-{n}", app="shop")["status"]["podIP"] for n in (1, 2))
    wait_for(lambda: client.addresses("shop") == [one, other])
    own.set_ready("shop-1", False)
    wait_for(lambda: client.addresses("shop") == [other])
    own.set_ready("shop-1", True)
    wait_for(lambda: client.addresses("shop") == [one, other])
    # No kubelet ends it: it stays terminating, and its readiness what it was.
    own.delete(f"{PODS}/shop-1", grace=600)
    wait_for(lambda: client.addresses("shop") == [other])
    # Nobody is ready: the one that terminates still serves.
    own.delete(f"{PODS}/shop-2")
    wait_for(lambda: client.addresses("shop") == [one])
    own.delete(f"{PODS}/shop-1")
    wait_for(lambda: client.addresses("shop") == [])


def test_addresses_that_are_not_ready_are_published_where_the_service_says_so(own: Place, client: Follower) -> None:
    own.service("early", publishNotReadyAddresses=True)
    address = own.pod("early-1", app="early", ready=False)["status"]["podIP"]
    wait_for(lambda: client.addresses("early") == [address])
    own.delete(f"{PODS}/early-1", grace=600)
    own.set_ready("early-1", False)
    wait_for(lambda: client.addresses("early") == [address])
    own.delete(f"{PODS}/early-1")
    wait_for(lambda: client.addresses("early") == [])


def test_a_headless_service_has_a_listener_for_each_pod(own: Place, client: Follower) -> None:
    own.service("db", clusterIP="None", ports=[{"name": "tcp", "port": 5432}])
    addresses = [own.pod(f"db-{n}", app="db")["status"]["podIP"] for n in (0, 1)]

    def listeners() -> set[str]:
        client.poll()
        return {name for name in client.agent.has.get("listeners", {}) if name.endswith("_5432")}

    wait_for(lambda: listeners() == {f"{address}_5432" for address in addresses})
    own.delete(f"{PODS}/db-0")
    wait_for(lambda: listeners() == {f"{addresses[1]}_5432"})


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_an_object_of_any_version_is_read(own: Place, client: Follower, version: str) -> None:
    own.service("routed")
    path = VIRTUAL_SERVICES.format(version, "routed")
    own.put(path, virtual_service("routed", "routed", f"/{version}", version))
    wait_for(lambda: client.paths("routed") == [f"/{version}"])
    own.delete(path)
    wait_for(lambda: client.paths("routed") == ["/"])


def test_a_service_that_is_deleted_is_forgotten(own: Place, client: Follower) -> None:
    own.service("gone")
    wait_for(lambda: "gone" in client.services())
    own.delete(f"{SERVICES}/gone")
    wait_for(lambda: "gone" not in client.services())


def test_what_a_client_prefers_is_known_by_its_node(own: Place, client: Follower) -> None:
    own.service("near", selector=None, trafficDistribution="PreferSameZone")
    own.put(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/near-1",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "near-1", "labels": {"kubernetes.io/service-name": "near"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": ["192.0.2.1"], "zone": "z2"}, {"addresses": ["192.0.2.2"], "zone": "z1"}],
        },
    )
    wait_for(lambda: client.addresses("near") == ["192.0.2.2", "192.0.2.1"])  # by priority


def test_secrets_are_those_of_gateways_read_by_name_where_it_was_allowed(
    own: Place, discovery: DiscoveryProcess, client: Follower
) -> None:
    """The gateway is there before the right is, and the right is for its names; nothing else is ever asked for."""
    own.put("/api/v1/namespaces/{}/secrets/other", {**SECRET, "metadata": {"name": "other"}})
    gateway = own.pod("edge", annotations={"inject.istio.io/templates": "gateway"})
    edge = Follower(own.agent(discovery, gateway), own.namespace)
    own.put("/apis/networking.istio.io/v1/namespaces/{}/gateways/edge", GATEWAY)
    account = "istio-system:heddle-discovery"
    wait_for(lambda: any(grant(own.namespace, account) == each["hint"] for each in discovery.status()["problems"]))
    for kind, body in ALLOWED.items():
        own.put(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{{}}/{kind}/edge", body)
    certificate = Authority().issue(dns="shop.example")
    pair = {"tls.crt": certificate.chain_pem, "tls.key": certificate.key_pem}
    own.put("/api/v1/namespaces/{}/secrets/shop", {**SECRET, "metadata": {"name": "shop"}, "stringData": pair})

    def served() -> set[str]:
        edge.poll()
        return set(edge.agent.has.get("secrets", {}))

    wait_for(lambda: len(served()) == 1, looks=1500)
    wait_for(lambda: not any(each["kind"] == "Secret" for each in discovery.status()["problems"]))
    own.delete("/api/v1/namespaces/{}/secrets/shop")
    wait_for(lambda: not served())
    assert own.api.control_plane is not None
    log = own.api.control_plane.audit_log.read_text().splitlines()
    asked = {
        (use.namespace, use.name) for use in uses(log, account) | denied(log, account) if use.resource == "secrets"
    }
    assert asked == {(own.namespace, "shop")}


SECRET = {"apiVersion": "v1", "kind": "Secret"}
GATEWAY = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "edge"},
    "spec": {
        "selector": {"app": "edge"},
        "servers": [
            {
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                "hosts": ["shop.example"],
                "tls": {"mode": "SIMPLE", "credentialName": "shop"},
            }
        ],
    },
}
ALLOWED = {
    "roles": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "edge"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["shop"], "verbs": ["list", "watch"]}],
    },
    "rolebindings": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "edge"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "edge"},
        "subjects": [{"kind": "ServiceAccount", "name": "heddle-discovery", "namespace": "istio-system"}],
    },
}


def test_kinds_that_are_installed_later_are_found(own_api_server: ApiServer, tmp_path: Path) -> None:
    with place(own_api_server, tmp_path, kinds=False) as own, DiscoveryProcess(own.kubeconfig, tmp_path) as discovery:
        client = Follower(own.agent(discovery, own.pod("client")), own.namespace)
        own.service("routed")
        wait_for(lambda: client.paths("routed") == ["/"])
        assert unread(discovery) >= {"VirtualService", "Gateway"}
        own.define()
        own.put(VIRTUAL_SERVICES.format("v1", "routed"), virtual_service("routed", "routed", "/late"))
        wait_for(lambda: client.paths("routed") == ["/late"])
        wait_for(lambda: not unread(discovery))


def unread(discovery: DiscoveryProcess) -> set[str]:
    """The kinds that cannot be listed or watched."""
    return {each["kind"] for each in discovery.status()["problems"] if not each["name"]}
