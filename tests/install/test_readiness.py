"""Whether workloads are ready, and why not, from their objects."""

from __future__ import annotations

from typing import Any

import pytest

from install.readiness import STARTING, Reason, pod_trouble, state_of


def deployment(replicas: int = 2, **status: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "d", "generation": 3},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 3, **status},
    }


def pod(name: str = "p", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"nodeName": "n"}, "status": status}


def waiting(reason: str, message: str = "", **last: Any) -> dict[str, Any]:
    return {
        "name": "c",
        "state": {"waiting": {"reason": reason, "message": message}},
        **({"lastState": last} if last else {}),
    }


READY = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def test_ready_is_every_pod_of_the_newest_and_none_of_another() -> None:
    assert state_of(deployment(**READY)).done
    assert not state_of(deployment(**{**READY, "replicas": 3})).done, "an old pod is still there"
    assert not state_of(deployment(**{**READY, "availableReplicas": 1})).done
    assert not state_of(deployment(**{**READY, "updatedReplicas": 1})).done
    assert not state_of({**deployment(**READY), "metadata": {"name": "d", "generation": 4}}).done, "not seen yet"


def test_pods_that_say_the_same_are_named_together() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "the webhook refused"}
    pods = [pod(name, containerStatuses=[waiting("ImagePullBackOff", "no such image")]) for name in ("b", "a")]
    state = state_of(deployment(conditions=[condition]), pods)
    assert state.reasons == (
        Reason("", "the webhook refused"),
        Reason("pod a, b", "container c: ImagePullBackOff: no such image"),
    )


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"conditions": [{"type": "Ready", "status": "True"}]}, ""),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: memory"}]},
            "it is not scheduled: 0/1 nodes: memory",
        ),
        ({"containerStatuses": [waiting("ContainerCreating")]}, STARTING[2]),
        (
            {
                "containerStatuses": [
                    waiting("CrashLoopBackOff", "back-off", terminated={"exitCode": 2, "message": "a\nb"})
                ]
            },
            "container c: CrashLoopBackOff: back-off (it ended with 2: b)",
        ),
        (
            {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]},
            "container i: it ended with 1: Error",
        ),
        ({"reason": "Evicted", "message": "the node was low on memory"}, "Evicted: the node was low on memory"),
        ({}, STARTING[1]),
    ],
)
def test_why_a_pod_is_not_ready(status: dict[str, Any], says: str) -> None:
    assert pod_trouble(pod(**status)) == says


def test_a_pod_on_its_way_out_is_no_trouble() -> None:
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pod_trouble(going) == ""


def test_a_daemon_set_without_nodes_is_ready() -> None:
    raw = {"kind": "DaemonSet", "metadata": {"name": "d"}, "spec": {}, "status": {"desiredNumberScheduled": 0}}
    assert state_of(raw).done
    raw["status"] = {"desiredNumberScheduled": 2, "numberAvailable": 1, "updatedNumberScheduled": 2}
    state = state_of(raw)
    assert (state.done, state.ready, state.wanted) == (False, 1, 2)


def test_a_definition_is_ready_when_it_is_served() -> None:
    def raw(**conditions: str) -> dict[str, Any]:
        listed = [{"type": kind, "status": status, "message": "taken"} for kind, status in conditions.items()]
        return {"kind": "CustomResourceDefinition", "metadata": {"name": "c"}, "status": {"conditions": listed}}

    assert state_of(raw(Established="True", NamesAccepted="True")).done
    assert not state_of(raw()).done
    assert state_of(raw(NamesAccepted="False")).reasons == (Reason("c", "taken"),)
