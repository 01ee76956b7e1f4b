"""The controllers, over a real store, with a stand-in for the kubelet (which needs a sandbox)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import pytest

from local.cluster import Controllers
from local.store import Raw, Store, key_of
from mesh.errors import Conflict, Forbidden, HeddleError, Unavailable
from mesh.objects import Key
from tests.support.waiting import wait_for


class Runner:
    """Pods run at once and end when they are told to; `held` keeps them from ending."""

    def __init__(self) -> None:
        self.running: dict[Key, Raw] = {}
        self.refuse: Callable[[Raw], Exception | None] = lambda pod: None
        self.ending: dict[Key, Future[None]] = {}
        self.hold = False

    def run(self, pod: Raw) -> None:
        if error := self.refuse(pod):
            raise error
        assert key_of(pod) not in self.running
        self.running[key_of(pod)] = pod

    def stop(self, namespace: str, name: str) -> Future[None]:
        self.running.pop(Key(namespace, name), None)
        ended: Future[None] = Future()
        self.ending[Key(namespace, name)] = ended
        if not self.hold:
            ended.set_result(None)
        return ended

    def refresh_volumes(self) -> None:
        pass


class World:
    def __init__(self) -> None:
        uids, times, letters = itertools.count(), itertools.count(), itertools.count()
        self.store = Store(uid=lambda: f"uid-{next(uids)}", now=lambda: f"2026-01-01T00:{next(times) // 60:02}:00Z")
        self.runner = Runner()
        self.denial: Callable[[Raw], HeddleError | None] = lambda pod: None
        self.served: list[Raw] = []
        self.controllers = Controllers(
            self.store,
            admit=self.admit,
            runner=self.runner,
            set_services=self.serve,
            root_certificate=lambda: "PEM",
            suffix=lambda: f"x{next(letters)}",
            now=lambda: "2026-01-01T01:00:00Z",
        )
        self.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})

    def admit(self, pod: Raw) -> Raw:
        if error := self.denial(pod):
            raise error
        return pod

    def serve(self, services: Iterable[Raw], slices: Iterable[Raw]) -> None:
        self.served = list(services)

    def settle(self) -> None:
        """Look until a look changes nothing, and pods that end have ended."""
        for _ in range(30):
            version = self.store.version
            self.controllers.look()
            for thread in threading.enumerate():
                if thread.name.startswith("end-") and not self.runner.hold:
                    thread.join(60)
            if self.store.version == version:
                return
        pytest.fail("the controllers do not come to rest")

    @property
    def problems(self) -> dict[str, str]:
        return self.controllers.problems

    def pod_names(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.store.items("Pod"))


def pod(name: str = "p", image: str = "a", **spec: object) -> Raw:
    body = {"containers": [{"name": "c", "image": image}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": name}, "spec": body}


def deployment(name: str = "web", **spec: object) -> Raw:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod(**spec)["spec"]}
    body = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}
    meta = {"namespace": "n", "name": name}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": body}


def service(name: str, **spec: object) -> Raw:
    body = {"selector": {"app": name}, "ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "n", "name": name}, "spec": body}


def test_every_namespace_gets_its_account_and_root_certificate_until_it_goes() -> None:
    world = World()
    world.settle()
    assert world.store.get("ServiceAccount", Key("n", "default")) is not None
    root = world.store.get("ConfigMap", Key("n", "istio-ca-root-cert"))
    assert root is not None
    assert root["data"] == {"root-cert.pem": "PEM"}
    world.store.delete("Namespace", Key("", "n"))
    world.settle()
    assert world.store.items("ServiceAccount") == world.store.items("ConfigMap") == []


def test_a_pod_runs_as_admitted_with_what_an_api_server_fills_in() -> None:
    world = World()
    world.controllers.keep_pod(pod())
    assert not world.controllers.settled()
    world.settle()
    assert world.controllers.settled()
    running = world.runner.running[Key("n", "p")]
    assert running["spec"]["serviceAccountName"] == "default"
    assert running["spec"]["restartPolicy"] == "Always"


def test_a_pod_is_pending_until_it_is_as_the_manifests_have_it_or_cannot_be() -> None:
    world = World()
    key = Key("n", "p")
    assert world.controllers.pending() == []
    world.controllers.keep_pod(pod())
    assert world.controllers.pending() == [key]
    world.settle()
    assert world.controllers.pending() == []
    changed = {**pod(), "metadata": {**pod()["metadata"], "labels": {"changed": "yes"}}}
    world.denial = lambda _: Unavailable("the injection webhook does not answer: refused")
    world.controllers.keep_pod(changed)
    assert world.controllers.pending() == [key]
    world.settle()
    assert world.controllers.pending() == []
    assert not world.controllers.settled()
    world.denial = lambda _: None
    world.controllers.keep_pod(pod())
    assert world.controllers.pending() == [key]
    world.settle()
    world.controllers.release_pod(key)
    assert world.controllers.pending() == [key]
    world.settle()
    assert world.controllers.pending() == []


def test_the_old_name_of_the_service_account_field_counts_too() -> None:
    world = World()
    world.store.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "n", "name": "old"}})
    world.controllers.keep_pod(pod(serviceAccount="old"))
    world.settle()
    assert world.runner.running[Key("n", "p")]["spec"]["serviceAccountName"] == "old"


def test_while_the_webhook_is_down_nothing_starts_and_then_everything_does() -> None:
    world = World()
    world.denial = lambda _: Unavailable("the injection webhook does not answer: refused")
    world.controllers.keep_pod(pod())
    world.store.put(deployment())
    world.settle()
    assert world.runner.running == {}
    assert not world.controllers.settled()
    (replica_set,) = world.store.items("ReplicaSet")
    assert world.problems == {
        "Pod n/p": "the injection webhook does not answer: refused",
        f"ReplicaSet n/{replica_set['metadata']['name']}": "the injection webhook does not answer: refused",
    }
    world.denial = lambda _: None
    world.settle()
    assert world.problems == {}
    assert len(world.runner.running) == 3


def test_a_pod_that_is_denied_stops_no_other() -> None:
    world = World()
    world.denial = lambda raw: Forbidden("denied") if raw["metadata"]["name"] == "bad" else None
    for name in ("a", "bad", "z"):
        world.controllers.keep_pod(pod(name))
    world.settle()
    assert world.pod_names() == ["a", "z"]
    assert world.problems == {"Pod n/bad": "denied"}


def test_a_bug_met_on_one_object_stops_no_other() -> None:
    world = World()
    world.runner.refuse = lambda raw: KeyError("oops") if raw["metadata"]["name"] == "a" else None
    world.controllers.keep_pod(pod("a"))
    world.controllers.keep_pod(pod("z"))
    world.controllers.look()
    assert "KeyError" in world.problems["Pod n/a"]
    assert list(world.runner.running) == [Key("n", "z")]
    failed = world.store.get("Pod", Key("n", "a"))
    assert failed is not None
    assert failed["status"]["reason"] == "CannotRun"


def test_a_missing_service_account_is_named_with_the_manifest_to_add() -> None:
    world = World()
    world.controllers.keep_pod(pod(serviceAccountName="robot"))
    world.settle()
    problem = world.problems["Pod n/p"]
    assert "there is no ServiceAccount n/robot" in problem
    assert "kind: ServiceAccount, metadata: {name: robot, namespace: n}" in problem
    world.store.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "n", "name": "robot"}})
    world.settle()
    assert world.problems == {}
    assert Key("n", "p") in world.runner.running


def test_a_pod_that_changed_is_ended_before_the_new_one_starts() -> None:
    world = World()
    world.controllers.keep_pod(pod(image="old"))
    world.settle()
    world.runner.hold = True
    world.controllers.keep_pod(pod(image="new"))
    world.settle()
    (leaving,) = world.store.items("Pod")
    assert "deletionTimestamp" in leaving["metadata"]
    assert world.runner.running == {}
    world.runner.hold = False
    world.runner.ending[Key("n", "p")].set_result(None)
    world.settle()
    assert world.runner.running[Key("n", "p")]["spec"]["containers"][0]["image"] == "new"


def test_a_pod_that_is_wanted_no_more_ends_and_may_come_back() -> None:
    world = World()
    for _ in range(3):
        world.controllers.keep_pod(pod())
        world.settle()
        assert world.pod_names() == ["p"]
        world.controllers.release_pod(Key("n", "p"))
        world.settle()
        assert world.pod_names() == []
    world.controllers.release_pod(Key("n", "never"))
    world.settle()


def test_a_pod_with_the_name_of_a_deployments_pod_is_named_and_takes_nothing_over() -> None:
    world = World()
    world.store.put(deployment())
    world.settle()
    taken = world.pod_names()[0]
    world.controllers.keep_pod(pod(taken))
    world.settle()
    assert "has a pod of that name (rename one of them)" in world.problems[f"Pod n/{taken}"]
    owned = world.store.get("Pod", Key("n", taken))
    assert owned is not None
    assert owned["metadata"]["ownerReferences"]


def test_services_get_addresses_and_keep_them() -> None:
    world = World()
    world.store.put(service("a"))
    world.store.put(service("headless", clusterIP="None"))
    world.store.put(service("outside", type="ExternalName", externalName="example.org"))
    world.settle()
    first = world.store.get("Service", Key("n", "a"))
    assert first is not None
    assert first["spec"]["clusterIP"].startswith("10.96.")
    version = world.store.version
    world.settle()
    assert world.store.version == version


def test_of_two_services_that_ask_for_one_address_the_first_keeps_it() -> None:
    world = World()
    world.store.put(service("a"))
    world.settle()
    held = world.store.items("Service")[0]["spec"]["clusterIP"]
    world.store.put(service("b", clusterIP=held))
    world.settle()
    assert world.problems == {
        "Service n/b": f"spec.clusterIP: Service n/b asks for address {held}, which service n/a has "
        "(leave spec.clusterIP out, or choose another address)"
    }
    assert [key_of(raw).name for raw in world.served] == ["a"]


def test_no_service_gets_the_address_of_dns() -> None:
    world = World()
    world.store.put(service("a", clusterIP="10.96.0.10"))
    world.settle()
    assert "which service kube-system/kube-dns has" in world.problems["Service n/a"]


def test_slices_come_and_go_with_pods_and_services() -> None:
    world = World()
    world.store.put(service("web"))
    world.store.put(deployment("web"))
    foreign = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": []}
    world.store.put({**foreign, "metadata": {"namespace": "n", "name": "own"}})
    world.settle()
    ready = {"phase": "Running", "podIP": "10.244.1.1", "conditions": [{"type": "Ready", "status": "True"}]}
    world.store.put({**world.store.items("Pod")[0], "status": ready})
    world.settle()
    assert len(world.store.items("EndpointSlice")) == 2
    world.store.delete("Service", Key("n", "web"))
    world.settle()
    assert [raw["metadata"]["name"] for raw in world.store.items("EndpointSlice")] == ["own"]


def test_when_the_runner_refuses_the_pod_is_failed_with_the_reason() -> None:
    world = World()
    world.runner.refuse = lambda _: Conflict("pod n/p is already running")
    world.controllers.keep_pod(pod())
    world.controllers.look()
    stored = world.store.get("Pod", Key("n", "p"))
    assert stored is not None
    assert stored["status"] == {"phase": "Failed", "reason": "CannotRun", "message": "pod n/p is already running"}


def test_the_thread_notices_pods_changes_and_the_end_of_trouble() -> None:
    world = World()
    world.denial = lambda _: Unavailable("not yet")
    world.controllers.start()
    try:
        world.controllers.keep_pod(pod("a"))
        wait_for(lambda: "Pod n/a" in world.problems)
        world.denial = lambda _: None
        wait_for(lambda: Key("n", "a") in world.runner.running)
        world.controllers.keep_pod(pod("b"))
        wait_for(lambda: Key("n", "b") in world.runner.running)
        world.store.put(deployment())
        wait_for(lambda: len(world.runner.running) == 4)
    finally:
        world.controllers.stop()
