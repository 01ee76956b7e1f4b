"""Pods that end, and certificates that are renewed, while requests are on their way: none of them fails."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.behaviour.world import Answer, Asker, World, echo, eventually, thing

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Put = Callable[..., Any]
OWN = {"app": "own"}
SERVICE = thing("Service", "own", {"selector": OWN, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
PAUSE_SECONDS = 0.02  # leaves processors for what is tested
LINGER = {"env": [{"name": "LINGER", "value": "3"}]}


class Stream:
    """Requests from a pod, one batch after another, until the `with` ends; `outcomes` counts status or error."""

    def __init__(self, world: World, pod: str, url: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._asker = Asker.start(world.mesh.state, pod)
        self._order = {"url": url, "times": 4, "parallel": 4}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._end.is_set():
            answers = self._asker.ask([self._order])
            self.outcomes.update(str(answer.get("status") or answer["error"]) for answer in answers)
            self._end.wait(PAUSE_SECONDS)

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self.outcomes, "no request is answered")

    def stop(self) -> None:
        self._end.set()
        self._thread.join(60)
        self._asker.close()


@contextmanager
def stream(world: World, url: str, pod: str = "mesh/client") -> Iterator[Stream]:
    """A stream of requests that must all succeed."""
    running = Stream(world, pod, url)
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert set(running.outcomes) == {"200"}, running.outcomes


def in_flight(world: World, pod: str) -> int:
    """Requests that the pod's Envoy has passed to the app, and that are not answered yet."""
    lines = world.agent(pod, "admin", "GET", "/stats?filter=inbound.*upstream_rq_active").splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("native", ["true", "false"])
def test_a_request_in_flight_finishes_when_its_pod_ends(world: World, case: Put, native: str) -> None:
    annotations = {"sidecar.istio.io/nativeSidecar": native}
    case(SERVICE, echo("own", OWN, container=LINGER, annotations=annotations))
    eventually(lambda: world.get("http://own/").get("status") == 200, "own does not answer")
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(world.get("http://own/?sleep=2", "mesh/lines")))
    asking.start()
    eventually(lambda: in_flight(world, "mesh/own"), "the request does not arrive")
    case(SERVICE)
    asking.join(60)
    assert answers[0].get("status") == 200, answers
    assert not world.pods("mesh", "own")


def deployment(version: str, replicas: int = 2) -> Answer:
    pod = echo(version, OWN, container=LINGER)
    pod["spec"]["containers"][0]["env"] = [{"name": "LINGER", "value": "1"}, {"name": "VERSION", "value": version}]
    probe = "readiness.status.sidecar.istio.io/"
    annotations = {f"{probe}periodSeconds": "1", f"{probe}failureThreshold": "1"}
    template = {"metadata": {"labels": OWN, "annotations": annotations}, "spec": pod["spec"]}
    return thing("Deployment", "own", {"replicas": replicas, "selector": {"matchLabels": OWN}, "template": template})


def test_a_deployment_is_replaced_under_load(world: World, case: Put) -> None:
    case(SERVICE, deployment("old"))
    with stream(world, "http://own/?sleep=0.02"):
        case(SERVICE, deployment("new"))
        eventually(lambda: version(world) == {"new"}, "the new pods do not answer")
        case(SERVICE, deployment("new", 1))
    assert len(world.pods("mesh", "own")) == 1


def version(world: World) -> set[str]:
    answers = world.many("http://own/", 10)
    assert {answer.get("status") for answer in answers} == {200}
    return {answer["body"]["version"] for answer in answers}


def test_a_sidecar_drains_by_command(world: World, case: Put) -> None:
    """Its readiness goes, so that traffic does, and what still comes is answered."""
    case(SERVICE, deployment("old"))
    with stream(world, "http://own/"):
        pod = world.pods("mesh", "own")[0]["name"]
        world.agent(f"mesh/{pod}", "drain")
        eventually(lambda: len(answering(world)) == 1, "a pod that drains still gets requests")


def answering(world: World) -> set[str]:
    return {answer["body"]["pod"] for answer in world.many("http://own/", 20)}


def test_certificates_are_renewed_again_and_again_under_traffic(world: World) -> None:
    serials = set()
    with stream(world, "http://echo/"):
        for _ in range(2):
            for pod in ("mesh/client", "mesh/echo-v1", "mesh/echo-v2"):
                serials.add(json.loads(world.agent(pod, "renew"))["new"])
    assert len(serials) == 6
