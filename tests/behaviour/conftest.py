"""One mesh for all tests of this folder: each test adds its case's manifest to it, and takes it out again."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.commands.local import find_pod
from cli.mesh_access import Mesh
from local.exec_socket import call
from tests.support.local_mesh import LocalMesh, local_mesh

HERE = Path(__file__).parent
ASK = str(HERE / "apps" / "ask.py")
CLIENT, CALLER = "mesh/client", "plain/caller"
TRUST = "spiffe://cluster.local/ns/"
SECONDS = 60.0

Answer = dict[str, Any]


@dataclass
class Asker:
    """A client process that stays in a pod and answers one batch of requests after another."""

    orders: Any
    answers: Any

    @classmethod
    def start(cls, state: Path, pod: str) -> Asker:
        namespace, _, name = pod.partition("/")
        orders_read, orders_write = os.pipe()
        answers_read, answers_write = os.pipe()

        def run() -> None:
            try:
                argv = [sys.executable, ASK]
                call(state / "exec.sock", namespace, name, "", argv, (orders_read, answers_write, 2))
            finally:
                os.close(orders_read)
                os.close(answers_write)

        threading.Thread(target=run, daemon=True).start()
        return cls(os.fdopen(orders_write, "w"), os.fdopen(answers_read))

    def ask(self, orders: list[dict[str, Any]]) -> list[Answer]:
        for order in orders:
            self.orders.write(json.dumps(order) + "\n")
        self.orders.flush()
        lines = [self.answers.readline() for _ in range(sum(order.get("times", 1) for order in orders))]
        assert all(lines), "the client's pod has ended"
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self.orders.close()
        self.answers.close()


@dataclass
class World:
    """The running mesh, and how a test speaks to it."""

    mesh: LocalMesh
    askers: dict[str, Asker] = field(default_factory=dict)

    @property
    def engine(self) -> Mesh:
        return Mesh(self.mesh.state)

    def ask(self, pod: str, *orders: dict[str, Any]) -> list[Answer]:
        """The answers to the requests (of apps/ask.py), made by the pod `namespace/name`, or `namespace/beginning`."""
        if pod in (CLIENT, CALLER):
            if pod not in self.askers:
                self.askers[pod] = Asker.start(self.mesh.state, pod)
            return self.askers[pod].ask(list(orders))
        asker = Asker.start(self.mesh.state, str(find_pod(self.engine, pod)))
        try:
            return asker.ask(list(orders))
        finally:
            asker.close()

    def get(self, url: str, pod: str = CLIENT, **order: Any) -> Answer:
        return self.ask(pod, {"url": url, **order})[0]

    def many(self, url: str, times: int, pod: str = CLIENT, **order: Any) -> list[Answer]:
        return self.ask(pod, {"url": url, "times": times, **order})

    def lines(self, host: str, port: int, pod: str = CLIENT, send: str = "a line") -> Answer:
        return self.ask(pod, {"tcp": [host, port], "send": send})[0]

    def objects(self, kind: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.engine.get(f"/objects/{kind}")["items"]
        return items

    def pods(self, namespace: str, prefix: str = "") -> list[dict[str, Any]]:
        """Lines of `heddle local status`, by name."""
        found = self.engine.get("/status")["pods"]
        return [p for p in found if p["namespace"] == namespace and p["name"].startswith(prefix)]

    def problems(self) -> str:
        """All problems of `heddle status`, as text to search in."""
        return json.dumps(self.mesh.json("status")["problems"])

    def write(self, name: str, text: str) -> dict[str, Any]:
        """Add or replace a file of manifests; the status once pods and proxies have all of it."""
        mark = time.monotonic_ns()
        marker = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"mark-{name}", "namespace": "plain"}}
        self.mesh.write(name, f"{text}\n---\n{yaml.safe_dump({**marker, 'data': {'mark': str(mark)}})}")
        eventually(lambda: self._mark(name) == str(mark), f"{name} is not read")
        return self.settle()

    def remove(self, name: str) -> dict[str, Any]:
        (self.mesh.manifests / name).unlink(missing_ok=True)
        eventually(lambda: self._mark(name) is None, f"{name} is still in force")
        return self.settle()

    def _mark(self, name: str) -> str | None:
        maps = (m for m in self.objects("ConfigMap") if m["metadata"]["name"] == f"mark-{name}")
        return next((m["data"]["mark"] for m in maps), None)

    def settle(self) -> dict[str, Any]:
        """Wait until workloads have the pods that they ask for, no pod is ending, and all proxies are current."""
        eventually(self._as_asked, "workloads do not have their pods")
        return self.mesh.settle()

    def _as_asked(self) -> bool:
        if any(pod["status"] == "Terminating" for pod in self.engine.get("/status")["pods"]):
            return False
        for kind in ("Deployment", "ReplicaSet"):
            for raw in self.objects(kind):
                asked = raw["spec"].get("replicas")
                status = raw.get("status") or {}
                asked = 1 if asked is None else asked
                if not status.get("readyReplicas", 0) == status.get("replicas", 0) == asked:
                    return False
        return True

    def close(self) -> None:
        for asker in self.askers.values():
            asker.close()


def eventually(check: Callable[[], Any], complaint: str, seconds: float = SECONDS) -> Any:
    """The first true value of `check()`."""
    until = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < until, complaint
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("behaviour")
    shutil.copytree(HERE / "manifests", folder / "manifests")
    with local_mesh(folder, folder / "manifests", HERE / "images.yaml") as mesh:
        world = World(mesh)
        world.settle()
        try:
            yield world
        finally:
            world.close()


@pytest.fixture
def case(world: World) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Puts the test's manifest in force (again, if called again); afterwards the world is as it was."""
    written = False

    def put(text: str) -> dict[str, Any]:
        nonlocal written
        written = True
        return world.write("case.yaml", text)

    yield put
    if written:
        world.remove("case.yaml")


@pytest.fixture(scope="module")
def module_case(world: World) -> Iterator[Callable[[str], dict[str, Any]]]:
    """The same for all tests of a file."""
    yield lambda text: world.write("module.yaml", text)
    world.remove("module.yaml")
