"""A revoked certificate at real Envoys: new connections by it are refused, others go on, and a new one helps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.behaviour.world import ONE_REQUEST, TRUST, Answer, World, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
ECHO = "http://echo.mesh/"


@pytest.fixture(autouse=True)
def unexplained(world: World) -> Iterator[None]:
    with world.explained.outside("which certificates are revoked is the ca's to say"):
        yield


@pytest.fixture
def revoke(world: World) -> Iterator[Callable[..., float]]:
    """Revokes, and says when the command returned (monotonic); afterwards nothing is revoked."""

    def now(*what: str) -> float:
        world.mesh.run("certificates", "revoke", *what)
        return time.monotonic()

    yield now
    for entry in world.mesh.json("certificates", "revoked")["entries"]:
        world.mesh.run("certificates", "unrevoke", entry["identity"] or next(iter(entry["serials"])))


def serial(world: World, pod: str) -> str:
    certificate: dict[str, str] = json.loads(world.agent(pod, "status"))["certificate"]
    return certificate["serial"]


def refused(answer: Answer) -> bool:
    """By the peer's TLS: the client's Envoy has no connection to send the request on."""
    return answer.get("status") == 503


def all_succeed(world: World, pod: str = "mesh/lines") -> bool:
    return {answer.get("status") for answer in world.many(ECHO, 5, pod)} == {200}


def test_a_pods_certificates(world: World, case: Callable[..., Any], revoke: Callable[..., float]) -> None:
    case(ONE_REQUEST)
    assert world.get(ECHO)["status"] == 200
    before = serial(world, "mesh/client")
    since = revoke("mesh/client")
    eventually(lambda: refused(world.get(ECHO)), "a revoked client is let in")
    print(f"refused {time.monotonic() - since:.2f} s after the command")
    assert all_succeed(world)
    # The list outlives the ca, and Envoy.
    world.engine.post("/components/ca/kill")
    for pod in ("mesh/echo-v1", "mesh/echo-v2"):
        world.agent(pod, "restart-envoy")
    eventually(lambda: all_succeed(world), "others are not let in after a restart")
    assert refused(world.get(ECHO))
    world.engine.post("/components/ca/start")
    eventually(lambda: world.mesh.run("certificates", "revoked", check=False).returncode == 0, "the ca stays away")
    world.mesh.run("certificates", "renew", "mesh/client")
    assert serial(world, "mesh/client") != before
    eventually(lambda: world.get(ECHO).get("status") == 200, "a new certificate does not help")


def test_an_identity_as_a_server(world: World, case: Callable[..., Any], revoke: Callable[..., float]) -> None:
    case(ONE_REQUEST)
    assert world.get(ECHO)["status"] == 200
    revoke("--identity", f"{TRUST}mesh/sa/echo", "-y")
    eventually(lambda: refused(world.get(ECHO)), "clients connect to a revoked server")
    renewal = world.mesh.run("certificates", "renew", "mesh/echo-v1", check=False)
    assert "sa/echo has been revoked" in renewal.stdout
    world.mesh.run("certificates", "unrevoke", f"{TRUST}mesh/sa/echo")
    eventually(lambda: all_succeed(world), "an identity that was restored is refused")
