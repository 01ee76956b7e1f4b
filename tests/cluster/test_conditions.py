"""The status of Istio's objects: written by one of two replicas, with what the proxies of both have.

The control plane is in a namespace of another name than usual."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import HeddleError, NotFound
from mesh.rbac import STATUS_LEASE
from tests.cluster.api_server import ApiServer
from tests.cluster.discovery_place import NODE, PODS, Follower, Place, place, virtual_service
from tests.cluster.webhooks import serving
from tests.discovery.harness import DiscoveryProcess, Json
from tests.support.certificates import Authority
from tests.support.waiting import wait_for

NETWORKING = "/apis/networking.istio.io/v1/namespaces/{}"
HOME = "mesh-system"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{HOME}/leases/{STATUS_LEASE}"
WORDS = "Envoy says no"


@contextmanager
def replicas(own: Place, names: tuple[str, ...]) -> Iterator[list[DiscoveryProcess]]:
    """Replicas of one trust root, each in a pod (an object) that says where it listens."""
    authority = Authority()
    with ExitStack() as stack:
        made = []
        for name in names:
            directory = own.directory / name
            directory.mkdir()
            process = DiscoveryProcess(own.kubeconfig, directory, authority=authority, env=pod_environment(name))
            stack.callback(own.api.client.delete, f"{PODS.format(HOME)}/{name}")
            replica_pod(own, name, process.port)
            made.append(stack.enter_context(process))
        yield made


def pod_environment(name: str) -> dict[str, str]:
    return {"POD_NAME": name, "POD_NAMESPACE": HOME, "POD_UID": "any"}


def replica_pod(own: Place, name: str, port: int) -> None:
    path = PODS.format(HOME)
    container = {"name": "discovery", "image": "x", "ports": [{"name": "https", "containerPort": port}]}
    own.api.client.post(
        path,
        {
            "metadata": {"name": name},
            "spec": {"serviceAccountName": "heddle-discovery", "nodeName": NODE, "containers": [container]},
        },
    )
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [ready]}
    own.api.client.merge(f"{path}/{name}/status", {"status": status})


@pytest.fixture(scope="module")
def own(module_api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(module_api_server, tmp_path_factory.mktemp("status"), home=HOME) as made:
        yield made


@pytest.fixture(scope="module")
def two(own: Place) -> Iterator[list[DiscoveryProcess]]:
    with replicas(own, ("discovery-0", "discovery-1")) as made:
        yield made


@pytest.fixture(scope="module")
def clients(own: Place, two: list[DiscoveryProcess]) -> list[Follower]:
    """One at each replica."""
    return [Follower(own.agent(one, own.pod(f"client-{n}")), own.namespace) for n, one in enumerate(two)]


def status(own: Place, plural: str, name: str) -> dict[str, Any]:
    found: Json = own.api.client.get(f"{NETWORKING.format(own.namespace)}/{plural}/{name}")
    told: dict[str, Any] = found.get("status") or {}
    return told


def condition(told: dict[str, Any], kind: str) -> tuple[str, str]:
    """Status and reason."""
    each = next((one for one in told.get("conditions", ()) if one["type"] == kind), {})
    return each.get("status", ""), each.get("reason", "")


def test_an_object_is_applied_by_the_proxies_of_both(
    own: Place, two: list[DiscoveryProcess], clients: list[Follower]
) -> None:
    own.service("shop")
    path = f"{NETWORKING}/virtualservices/shop"
    made = own.put(path, virtual_service("shop", "shop", "/one"))

    def done(generation: int) -> bool:
        for client in clients:
            client.poll()
        told = status(own, "virtualservices", "shop")
        return (
            told.get("observedGeneration") == generation
            and condition(told, "Accepted") == ("True", "Accepted")
            and condition(told, "Reconciled") == ("True", "Reconciled")
            and told["heddle"]["proxies"] == {"applied": 2, "total": 2, "refused": []}
        )

    wait_for(lambda: done(made["metadata"]["generation"]))
    changed = own.put(path, virtual_service("shop", "shop", "/two"))
    assert changed["metadata"]["generation"] == made["metadata"]["generation"] + 1
    wait_for(lambda: done(changed["metadata"]["generation"]))


def test_a_refusal_is_told_in_envoys_words(own: Place, two: list[DiscoveryProcess], clients: list[Follower]) -> None:
    own.service("refused")
    own.put(f"{NETWORKING}/virtualservices/refused", virtual_service("refused", "refused", "/"))
    name = f"80/refused.{own.namespace}.svc.cluster.local:80"
    wait_for(lambda: all(name in _hosts(client) for client in clients))
    agent = clients[1].agent
    rejected = [{"name": name, "message": WORDS, "since": "2026-01-01T00:00:00Z"}]

    def told() -> bool:
        # Said again before each poll: a later answer (the route, after the service alone) counts as taken by itself.
        agent.applied["virtualHosts"] = {**agent.applied["virtualHosts"], "rejected": rejected}
        for client in clients:
            client.poll()
        found = status(own, "virtualservices", "refused")
        if condition(found, "Reconciled") != ("False", "Refused"):
            return False
        (refused,) = found["heddle"]["proxies"]["refused"]
        return bool(refused == {"pod": f"{own.namespace}/client-1", "resource": name, "message": WORDS})

    wait_for(told)
    agent.applied["virtualHosts"] = {**agent.applied["virtualHosts"], "rejected": []}

    def well() -> bool:
        for client in clients:
            client.poll()
        return condition(status(own, "virtualservices", "refused"), "Reconciled") == ("True", "Reconciled")

    wait_for(well)


def _hosts(client: Follower) -> set[str]:
    client.poll()
    return set(client.agent.has.get("virtualHosts", {}))


def test_what_cannot_be_done_is_said(own: Place, two: list[DiscoveryProcess], clients: list[Follower]) -> None:
    own.service("lost")
    own.put(f"{NETWORKING}/virtualservices/lost", virtual_service("lost", "lost", "/") | _to("nowhere"))
    own.put(
        f"{NETWORKING}/serviceentries/planned",
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": "planned"},
            "spec": {
                "hosts": ["example.com"],
                "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
                "resolution": "DNS",
            },
        },
    )

    def said() -> bool:
        for client in clients:
            client.poll()
        unresolved = condition(status(own, "virtualservices", "lost"), "Accepted")
        planned = condition(status(own, "serviceentries", "planned"), "Accepted")
        return unresolved == ("False", "UnresolvedReferences") and planned == ("False", "NotActedUpon")

    wait_for(said)


def _to(host: str) -> Json:
    return {"spec": {"hosts": ["lost"], "http": [{"route": [{"destination": {"host": host}}]}]}}


def test_nothing_is_written_while_nothing_changes(
    own: Place, two: list[DiscoveryProcess], clients: list[Follower]
) -> None:
    own.service("quiet")
    own.put(f"{NETWORKING}/virtualservices/quiet", virtual_service("quiet", "quiet", "/"))

    def reconciled() -> bool:
        for client in clients:
            client.poll()
        return condition(status(own, "virtualservices", "quiet"), "Reconciled") == ("True", "Reconciled")

    wait_for(reconciled)
    before = _version(own)
    renewals = {own.api.client.get(LEASE)["spec"]["renewTime"]}

    def later() -> bool:
        for client in clients:
            client.poll()
        renewals.add(own.api.client.get(LEASE)["spec"]["renewTime"])
        return len(renewals) == 3  # several looks of the writer have passed

    wait_for(later)
    assert _version(own) == before


def _version(own: Place) -> str:
    found: Json = own.api.client.get(f"{NETWORKING.format(own.namespace)}/virtualservices/quiet")
    version: str = found["metadata"]["resourceVersion"]
    return version


PROXY_CONFIG = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "ProxyConfig",
    "metadata": {"name": "tuned"},
    "spec": {"selector": {"matchLabels": {"app": "tuned"}}, "concurrency": 5},
}


def test_a_proxy_config_is_taken_by_pods_that_are_made_from_then_on(
    own: Place, two: list[DiscoveryProcess], tmp_path: Path
) -> None:
    """By a webhook of its own account; the proxies of one pod of either kind are connected, each to another replica."""
    path = "/apis/networking.istio.io/v1beta1/namespaces/{}/proxyconfigs/tuned"

    def told() -> tuple[int, int]:
        for client in clients:
            client.poll()
        found = own.api.client.get(path.format(own.namespace)).get("status") or {}
        proxies = found.get("heddle", {}).get("proxies", {})
        return proxies.get("applied", -1), proxies.get("total", -1)

    with serving(own.api, tmp_path) as (webhook, _):
        labels = {"metadata": {"labels": {"istio.io/rev": webhook.revision}}}
        own.api.client.merge(f"/api/v1/namespaces/{own.namespace}", labels)
        wait_for(lambda: concurrency(own) == 2)
        old = own.pod("old", app="tuned")
        own.put(path, PROXY_CONFIG)
        wait_for(lambda: concurrency(own) == 5)
        new = own.pod("new", app="tuned")
    clients = [Follower(own.agent(at, pod), own.namespace) for at, pod in zip(two, (old, new), strict=True)]
    wait_for(lambda: told() == (1, 2))


def concurrency(own: Place) -> int | None:
    """Of the proxy of a pod that would be made now; None when it would get none, or the webhook is not reached yet."""
    container = {"name": "app", "image": "example.org/app"}
    metadata = {"name": "probe", "labels": {"app": "tuned"}}
    body = {"metadata": metadata, "spec": {"containers": [container]}}
    try:
        made = own.api.client.call("POST", PODS.format(own.namespace), query={"dryRun": "All"}, body=body)
    except HeddleError:
        return None
    proxies = [each for each in made["spec"].get("initContainers", ()) if each["name"] == "istio-proxy"]
    said = [json.loads(each["value"]) for proxy in proxies for each in proxy["env"] if each["name"] == "PROXY_CONFIG"]
    return next((int(each["concurrency"]) for each in said), None)


def test_another_replica_takes_over(own_api_server: ApiServer, tmp_path: Path) -> None:
    with place(own_api_server, tmp_path, home=HOME) as own, replicas(own, ("discovery-0", "discovery-1")) as two:
        wait_for(lambda: bool(_holder(own)))
        first = _holder(own)
        two[int(first[-1])].__exit__(None, None, None)
        wait_for(lambda: _holder(own) not in ("", first))
        own.put(f"{NETWORKING}/virtualservices/late", virtual_service("late", "late", "/"))
        wait_for(lambda: bool(status(own, "virtualservices", "late").get("conditions")))


def _holder(own: Place) -> str:
    try:
        holder: str = own.api.client.get(LEASE)["spec"]["holderIdentity"]
    except NotFound:
        return ""
    return holder
