"""Which pods should exist: Deployments, ReplicaSets and Jobs, driven to rest step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.store import Raw, Store
from local.workloads import Create, Remove, SetStatus, reconcile
from mesh.objects import Key


class World:
    """A store whose pods become ready, or end, as a test says; `settle` reconciles until nothing is left to do."""

    def __init__(self) -> None:
        uids, letters = itertools.count(), itertools.count()
        self.store = Store(uid=lambda: f"uid-{next(uids)}", now=lambda: f"2026-01-01T00:00:{next(letters):02}Z")
        self._suffixes = itertools.count()

    def step(self) -> int:
        items = self.store.items
        actions = reconcile(
            items("Deployment"), items("ReplicaSet"), items("Job"), items("Pod"), lambda: f"p{next(self._suffixes)}"
        )
        for action in actions:
            match action:
                case Create(raw):
                    self.store.put(raw)
                case Remove(kind, key):
                    self.store.delete(kind, key)
                case SetStatus(kind, key, status):
                    self.store.update(kind, key, lambda raw, status=status: {**raw, "status": status})
        return len(actions)

    def settle(self, *, ready: bool = True) -> None:
        for _ in range(50):
            if ready:
                self.all_pods({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
            if not self.step():
                return
        pytest.fail("reconciliation does not come to rest")

    def all_pods(self, status: Raw) -> None:
        for pod in self.store.items("Pod"):
            self.store.put({**pod, "status": status})

    def images(self) -> list[str]:
        return sorted(pod["spec"]["containers"][0]["image"] for pod in self.store.items("Pod"))


def deployment(replicas: int | None, image: str = "a", **spec: object) -> Raw:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    body = {"template": template, "selector": {"matchLabels": {"app": "x"}}, **spec}
    if replicas is not None:
        body["replicas"] = replicas
    meta = {"namespace": "n", "name": "web"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": body}


def job(**spec: object) -> Raw:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "a"}]}}
    meta = {"namespace": "n", "name": "once"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template, **spec}}


def test_a_deployment_gets_its_pods_with_names_and_labels_as_kubernetes_gives_them() -> None:
    world = World()
    world.store.put(deployment(None))
    world.settle()
    (pod,) = world.store.items("Pod")
    (replica_set,) = world.store.items("ReplicaSet")
    assert pod["metadata"]["name"].startswith(replica_set["metadata"]["name"] + "-")
    assert replica_set["metadata"]["name"].startswith("web-")
    assert pod["metadata"]["labels"]["app"] == "x"
    assert pod["metadata"]["labels"]["pod-template-hash"] in replica_set["metadata"]["name"]
    assert world.store.items("Deployment")[0]["status"]["readyReplicas"] == 1


@given(st.lists(st.integers(min_value=0, max_value=5), min_size=1, max_size=5))
def test_scaling_ends_at_the_wanted_number(replicas: list[int]) -> None:
    world = World()
    for wanted in replicas:
        world.store.put(deployment(wanted))
        world.settle()
    assert len(world.store.items("Pod")) == replicas[-1]


def test_a_rollout_keeps_old_pods_until_new_ones_are_ready() -> None:
    world = World()
    world.store.put(deployment(2, "old"))
    world.settle()
    world.store.put(deployment(2, "new"))
    for _ in range(5):
        world.step()
    old_are_ready = [pod for pod in world.store.items("Pod") if pod["spec"]["containers"][0]["image"] == "old"]
    assert len(old_are_ready) == 2
    assert world.images() == ["new", "new", "old", "old"]
    world.settle()
    assert world.images() == ["new", "new"]
    assert len(world.store.items("ReplicaSet")) == 1


def test_recreate_ends_the_old_pods_first() -> None:
    world = World()
    strategy: Raw = {"type": "Recreate"}
    world.store.put(deployment(1, "old", strategy=strategy))
    world.settle()
    world.store.put(deployment(1, "new", strategy=strategy))
    seen: list[list[str]] = []
    for _ in range(10):
        world.step()
        seen.append(world.images())
    assert ["new", "old"] not in seen
    assert seen[-1] == ["new"]


def test_a_pod_that_failed_is_replaced() -> None:
    world = World()
    world.store.put(deployment(1))
    world.settle()
    before = world.store.items("Pod")[0]["metadata"]["name"]
    world.all_pods({"phase": "Failed"})
    world.step()
    world.settle()
    (pod,) = world.store.items("Pod")
    assert pod["metadata"]["name"] != before


def test_everything_of_a_deleted_deployment_goes() -> None:
    world = World()
    world.store.put(deployment(3))
    world.settle()
    world.store.delete("Deployment", Key("n", "web"))
    world.settle()
    assert world.store.items("ReplicaSet") == []
    assert world.store.items("Pod") == []


def phases(world: World) -> list[str]:
    return [pod.get("status", {}).get("phase", "Pending") for pod in world.store.items("Pod")]


def test_a_job_runs_as_often_as_asked_and_keeps_its_pods() -> None:
    world = World()
    world.store.put(job(completions=3, parallelism=2))
    world.settle(ready=False)
    assert len(world.store.items("Pod")) == 2
    for _ in range(3):
        world.all_pods({"phase": "Succeeded"})
        world.settle(ready=False)
    assert phases(world) == ["Succeeded"] * 3
    assert world.store.items("Job")[0]["status"]["conditions"] == [{"type": "Complete", "status": "True"}]


def test_a_job_gives_up_after_its_backoff_limit() -> None:
    world = World()
    world.store.put(job(backoffLimit=1))
    for _ in range(4):
        world.settle(ready=False)
        world.all_pods({"phase": "Failed"})
    world.settle(ready=False)
    assert len(world.store.items("Pod")) == 2
    assert world.store.items("Job")[0]["status"]["conditions"][0]["reason"] == "BackoffLimitExceeded"


@pytest.mark.parametrize("make", [lambda: deployment(2), lambda: job()])
def test_at_rest_there_is_nothing_to_do(make: Callable[[], Raw]) -> None:
    world = World()
    world.store.put(make())
    world.settle(ready=False)
    assert world.step() == 0
