"""Discovery on a cluster: a real API server and its controllers; discovery runs with its own rights and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery.gateway_secrets import grant
from tests.cli.run import heddle
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


def test_people_are_told_by_the_same_objects_with_rights_to_list(
    own: Place, client: Follower, module_api_server: ApiServer, tmp_path: Path
) -> None:
    """`heddle explain`, `diff` and `analyze` read the objects themselves; discovery's own rights are enough for it."""
    own.service("told")
    own.pod("told-1", app="told")
    own.put(VIRTUAL_SERVICES.format("v1", "told"), virtual_service("told", "told", "/a"))
    wait_for(lambda: client.paths("told") == ["/a"] and bool(client.addresses("told")))
    source = f"{own.namespace}/client"
    code, told = asked(own.kubeconfig, "explain", source, "told/a")
    assert (code, [branch["workloads"] for branch in told["branches"]]) == (0, [[f"{own.namespace}/told-1"]])
    code, told = asked(own.kubeconfig, "explain", source, "told/b")
    assert (code, told["branches"][0]["outcome"]["status"]) == (3, 404)

    file = tmp_path / "told.yaml"
    file.write_text(json.dumps(virtual_service("told", "told", "/b")))
    code, told = asked(own.kubeconfig, "diff", "-f", str(file), "-n", own.namespace)
    assert (code, {change["part"] for change in _changes(told)}) == (1, {"route"})
    assert all(change["origins"][0]["name"] == "told" for change in _changes(told))

    code, told = asked(own.kubeconfig, "analyze", "-n", own.namespace)
    assert (code, [each["code"] for each in told["findings"] if each["object"].endswith("/told")]) == (0, [])
    nobody = virtual_service("told", "nobody", "/b")
    nobody["metadata"]["namespace"] = own.namespace
    file.write_text(json.dumps(nobody))
    code, told = asked(own.kubeconfig, "analyze", "-f", str(file), "--on-mesh")
    assert (code, "HDL0101" in {each["code"] for each in told["findings"]}) == (1, True)

    # A control plane elsewhere has its settings there, and that is what is named.
    with module_api_server.namespace(prefix="mesh") as home:
        settings: Any = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": home},
            "data": {"mesh": "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"},
        }
        file.write_text(json.dumps(settings))
        words = ("diff", "-f", str(file), "-i", home)
        code, told = asked(module_api_server.kubeconfig, *words)
        named = {(each["kind"], each["namespace"]) for one in _changes(told) for each in one["origins"]}
        assert (code, named) == (1, {("ConfigMap", home)})
        module_api_server.client.post(f"/api/v1/namespaces/{home}/configmaps", settings)
        code, told = asked(module_api_server.kubeconfig, "explain", source, "nowhere.example", "-i", home)
        (origin,) = told["branches"][0]["outcome"]["origins"]
        assert (code, origin["kind"], origin["namespace"]) == (3, "ConfigMap", home)
        assert asked(module_api_server.kubeconfig, "explain", source, "nowhere.example")[0] == 0


def asked(kubeconfig: Path, *words: str) -> tuple[int, Any]:
    """Exit code and JSON of a command."""
    done = heddle(*words, f"--kubeconfig={kubeconfig}", "-o", "json")
    return done.code, json.loads(done.out)


def _changes(told: Any) -> list[Any]:
    return [change for each in told["differences"] for change in each["changes"]]


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
