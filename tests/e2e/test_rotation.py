"""A rotation of the root, and a rollback from each phase, in a mesh of real Envoys under STRICT, with requests that
never stop. Half of them come on connections of their own, half on kept ones; within the mesh, each hop to details and
ratings is a new connection with its handshake, the others are kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import pytest

from cli.mesh_access import Mesh
from cli.proxies import EmbeddedProxies
from mesh.errors import HeddleError
from tests.support.local_mesh import LocalMesh
from tests.support.mesh_processes import sidecar
from tests.support.steady_load import SteadyLoad, load_command

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
PRODUCT = "/api/v1/products/0"
ROTATION = "/v1/rotation"
SECONDS = 120.0
WINDOW = 1
RATE = 70.0  # a second at the gateway, each with two more in the mesh: 210 a second over mutual TLS
FORWARD = ["distribute", "sign", "renew", "drain", "retire", "destroy", "idle"]
TRIES = 3  # a phase may be over before it is seen
HANDSHAKES = "/stats?filter=ssl%5C.(connection_error|fail_verify_)|upstream_cx_connect_fail"
FRESH = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: fresh-{host}, namespace: bookinfo}}
spec: {{host: {host}, trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}}}}}
---
"""


@pytest.fixture(scope="module")
def load(bookinfo: LocalMesh) -> Iterator[SteadyLoad]:
    """Requests to the mesh, with new connections on some hops. Of all handshakes in between none fails, be it one of a
    request that was tried again."""
    bookinfo.change("fresh.yaml", "".join(FRESH.format(host=host) for host in ("details", "ratings")))
    bookinfo.settle()
    before = failed_handshakes(bookinfo)
    made = SteadyLoad(load_command(f"http://127.0.0.1:{bookinfo.port}{PRODUCT}", RATE))
    yield made
    after = failed_handshakes(bookinfo)  # before the requests are broken off
    made.close()
    (bookinfo.manifests / "fresh.yaml").unlink()
    bookinfo.settle()
    assert after - before == Counter()


@pytest.fixture
def busy(bookinfo: LocalMesh, load: SteadyLoad) -> Iterator[LocalMesh]:
    """The mesh. During the test no request fails."""
    load.take()
    yield bookinfo
    counted = load.take()
    print(counted)
    assert counted["failures"] == {}
    assert counted["requests"] > 100, "there was no load"
    assert bookinfo.get(PRODUCT)[0] == 200


def failed_handshakes(mesh: LocalMesh) -> Counter[str]:
    """What every Envoy has counted, by pod and statistic."""
    proxies = EmbeddedProxies(Mesh(mesh.state))
    found: Counter[str] = Counter()
    for proxy in proxies.listed():
        for line in proxies.run(proxy.pod, ["heddle-agent", "admin", "GET", HANDSHAKES]).splitlines():
            name, _, value = line.rpartition(": ")
            found[f"{proxy.pod} {name}"] = int(value)
    assert found, "Envoy has no such statistics"
    return found


def passed(engine: Mesh, back_from: str = "", deaths: Mapping[str, Callable[[], None]] | None = None) -> list[str]:
    """The phases of a rotation, a rollback's with a minus, until it is over.

    It is rolled back as soon as `back_from` is seen. `deaths`: what is done once the phase, or one after it, is seen.
    """
    until, todo = time.monotonic() + SECONDS, dict(deaths or {})
    assert engine.ca_post(ROTATION, {"do": "start", "windowSeconds": WINDOW})["phase"] == "distribute"
    while True:
        try:
            body = engine.ca(ROTATION)
            if body["phase"] == "idle":
                break
            if back_from and body["direction"] == "forward" and at(body) >= FORWARD.index(back_from):
                body = engine.ca_post(ROTATION, {"do": "rollback"})
        except HeddleError:  # it has just been killed, or has gone on to the last phase meanwhile
            assert time.monotonic() < until
            time.sleep(0.05)
            continue
        for phase in [phase for phase in todo if FORWARD.index(phase) <= at(body)]:
            todo.pop(phase)()
        assert time.monotonic() < until, body
        time.sleep(0.05)
    assert todo.keys() <= {FORWARD[-2]}, f"these were never seen: {todo}"  # which lasts half a second
    return [f"{'-' if step['direction'] == 'back' else ''}{step['phase']}" for step in body["history"]]


def death(engine: Mesh, *components: str) -> Callable[[], None]:
    """All of them are killed, then started again."""

    def die() -> None:
        for order in ("kill", "start"):
            for component in components:
                engine.post(f"/components/{component}/{order}")

    return die


def at(body: Mapping[str, Any]) -> int:
    return FORWARD.index(body["phase"])


def roots_in_use(mesh: LocalMesh) -> set[str]:
    """The roots that leaves lead to, by what the agents say."""
    return {proxy["trust"]["root"] for proxy in Mesh(mesh.state).discovery("/v1/trust")["proxies"]}


def active(engine: Mesh) -> str:
    (root,) = engine.ca(ROTATION)["roots"]
    return str(root["fingerprint"])


def test_everyone_dies_in_every_phase(bookinfo: LocalMesh) -> None:
    """All of the control plane at once, and a sidecar, another one each time. Before there is a load: a pod whose
    sidecar dies answers nobody until the next one is there."""
    engine = Mesh(bookinfo.state)
    pods = cycle(sorted(proxy.pod.name for proxy in EmbeddedProxies(engine).listed()))
    everyone, died = death(engine, "ca", "discovery", "webhook"), set[str]()

    def die() -> None:
        died.add(engine.ca(ROTATION)["phase"])
        sidecar(bookinfo.process.pid, next(pods))[0].kill()
        everyone()

    for _ in range(TRIES):
        before = active(engine)
        missing = [phase for phase in FORWARD[:-1] if phase not in died]
        assert passed(engine, deaths=dict.fromkeys(missing, die)) == FORWARD
        assert active(engine) != before
        bookinfo.settle()
        assert roots_in_use(bookinfo) == {active(engine)}
        assert bookinfo.get(PRODUCT)[0] == 200
        if died >= set(FORWARD[:-1]):
            break
    assert died >= set(FORWARD[:-1])


def test_a_rotation_fails_no_request_although_the_control_plane_dies(busy: LocalMesh) -> None:
    engine = Mesh(busy.state)
    before = active(engine)
    killed = {"distribute": "discovery", "sign": "webhook", "renew": "ca", "drain": "discovery"}
    assert passed(engine, deaths={phase: death(engine, component) for phase, component in killed.items()}) == FORWARD
    assert active(engine) != before
    assert roots_in_use(busy) == {active(engine)}


@pytest.mark.parametrize(
    ("phase", "killed"),
    [
        ("distribute", {"distribute": "ca"}),
        ("sign", {}),
        ("renew", {}),
        ("drain", {"sign": "discovery"}),
        ("retire", {}),
    ],
)
def test_a_rollback_from_each_phase_fails_none_either(busy: LocalMesh, phase: str, killed: Mapping[str, str]) -> None:
    engine = Mesh(busy.state)
    before = active(engine)
    for _ in range(TRIES):
        seen = passed(engine, phase, {at_phase: death(engine, name) for at_phase, name in killed.items()})
        if _rolled_back_from(seen) == phase:
            break
        before = active(engine)  # it may have got to its end
    assert _rolled_back_from(seen) == phase, seen
    assert seen[-1] == "-idle"
    assert active(engine) == before
    assert roots_in_use(busy) == {active(engine)}


def _rolled_back_from(seen: Sequence[str]) -> str:
    """The last phase that was passed forward."""
    return [step for step in seen if not step.startswith("-")][-1]
