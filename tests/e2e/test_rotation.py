"""A rotation of the root, and a rollback, in a mesh of real Envoys under STRICT, with requests that never stop.

Hops to details and ratings take a new connection for each request, the others keep theirs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cli.load import Load
from cli.mesh_access import Mesh
from mesh.errors import HeddleError
from tests.support.local_mesh import LocalMesh

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
PRODUCT = "/api/v1/products/0"
ROTATION = "/v1/rotation"
SECONDS = 120.0
FORWARD = ["distribute", "sign", "renew", "drain", "retire", "destroy", "idle"]
FRESH = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: fresh-{host}, namespace: bookinfo}}
spec: {{host: {host}, trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}}}}}
---
"""


@pytest.fixture(scope="module")
def busy(bookinfo: LocalMesh) -> Iterator[LocalMesh]:
    """The mesh, with new connections on some hops."""
    bookinfo.change("fresh.yaml", "".join(FRESH.format(host=host) for host in ("details", "ratings")))
    bookinfo.settle()
    yield bookinfo
    (bookinfo.manifests / "fresh.yaml").unlink()
    bookinfo.settle()


def version(answer: Any) -> str:
    return str(answer["reviews"].get("version"))


def load(mesh: LocalMesh) -> Load:
    """A stream, which leaves the processors to what happens in it."""
    return Load("127.0.0.1", mesh.port, PRODUCT, version, connections=3, pause=0.03).start()


def follow(engine: Mesh, does: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Until it is over: the phases passed, with their directions.

    What `does` says happens once that phase (a short one may be over by then) is seen: `rollback`, or a component of
    that name is killed and started.
    """
    todo, until = dict(does), time.monotonic() + SECONDS
    while True:
        assert time.monotonic() < until, engine.ca(ROTATION)
        try:
            body = engine.ca(ROTATION)
        except HeddleError:  # it has just been killed
            time.sleep(0.05)
            continue
        if body["phase"] == "idle":
            assert not todo, f"these were never seen: {todo}"
            return [(step["phase"], step["direction"]) for step in body["history"]]
        now, direction = FORWARD.index(body["phase"]), body["direction"]
        due = (key for key in todo if key[1] == direction and FORWARD.index(key[0]) <= now)
        act = todo.pop(next(due, ("", "")), "")
        if act == "rollback":
            engine.ca_post(ROTATION, {"do": "rollback"})
        elif act:
            engine.post(f"/components/{act}/kill")
            engine.post(f"/components/{act}/start")
        time.sleep(0.05)


def roots_in_use(mesh: LocalMesh) -> set[str]:
    """The roots that leaves lead to, by what the agents say."""
    return {proxy["trust"]["root"] for proxy in Mesh(mesh.state).discovery("/v1/trust")["proxies"]}


def active(body: Mapping[str, Any]) -> str:
    (root,) = body["roots"]
    return str(root["fingerprint"])


def test_a_rotation_fails_no_request_although_the_control_plane_dies(busy: LocalMesh) -> None:
    engine = Mesh(busy.state)
    before = engine.ca(ROTATION)
    stream = load(busy)
    assert engine.ca_post(ROTATION, {"do": "start", "windowSeconds": 4})["phase"] == "distribute"
    passed = follow(
        engine,
        {("distribute", "forward"): "ca", ("renew", "forward"): "discovery", ("retire", "forward"): "ca"},
    )
    counts = stream.stop()
    assert counts.total > 50
    assert not counts.failures
    assert passed == [(phase, "forward") for phase in FORWARD]
    after = engine.ca(ROTATION)
    assert active(after) != active(before)
    assert roots_in_use(busy) == {active(after)}
    assert busy.get(PRODUCT)[0] == 200


def test_a_rollback_fails_none_either(busy: LocalMesh) -> None:
    engine = Mesh(busy.state)
    before = engine.ca(ROTATION)
    stream = load(busy)
    engine.ca_post(ROTATION, {"do": "start", "windowSeconds": 3})
    passed = follow(
        engine,
        {
            ("sign", "forward"): "ca",
            ("renew", "forward"): "rollback",
            ("sign", "back"): "discovery",
            ("renew", "back"): "ca",
            ("retire", "back"): "discovery",
        },
    )
    counts = stream.stop()
    assert counts.total > 50
    assert not counts.failures
    assert passed[-1] == ("idle", "back")
    after = engine.ca(ROTATION)
    assert active(after) == active(before)
    assert roots_in_use(busy) == {active(after)}
    assert busy.get(PRODUCT)[0] == 200
