"""The running mesh of the behaviour tests: how a test changes it, speaks in it, and writes what it adds to it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cli.commands.local import find_pod, run_in_pod
from cli.mesh_access import Mesh
from local.exec_socket import call
from mesh.objects import Key
from tests.behaviour.explained import Explained, request_of
from tests.support.local_mesh import LocalMesh

HERE = Path(__file__).parent
ASK = str(HERE / "apps" / "ask.py")
STRANGER = str(HERE / "apps" / "stranger.py")
CLIENT, CALLER = "mesh/client", "plain/caller"
TRUST = "spiffe://cluster.local/ns/"
SECONDS = 120.0
DISCOVERED = {"Service", "PeerAuthentication", "VirtualService", "DestinationRule", "Gateway", "Telemetry"}

Answer = dict[str, Any]


@dataclass
class Asker:
    """A client process that stays in a pod and answers one batch of requests after another."""

    orders: Any
    answers: Any

    @classmethod
    def start(cls, state: Path, pod: str, program: str = ASK) -> Asker:
        namespace, _, name = pod.partition("/")
        orders_read, orders_write = os.pipe()
        answers_read, answers_write = os.pipe()

        def run() -> None:
            try:
                argv = [sys.executable, program]
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
    written: dict[str, set[tuple[str, str, str]]] = field(default_factory=dict)
    explained: Explained = field(init=False)

    def __post_init__(self) -> None:
        self.explained = Explained(self.engine)

    @property
    def engine(self) -> Mesh:
        return Mesh(self.mesh.state)

    def ask(self, pod: str, *orders: dict[str, Any]) -> list[Answer]:
        """The answers to the requests (of apps/ask.py), made by the pod `namespace/name`, or `namespace/beginning`."""
        key = Key(*pod.split("/")) if pod in (CLIENT, CALLER) else find_pod(self.engine, pod)
        answers = self._ask(key, *orders)
        start = 0
        for order in orders:
            own = answers[start : start + order.get("times", 1)]
            start += len(own)
            self.explained.compare(request_of(key, order), order, own, lambda order=order: self._ask(key, order))
        return answers

    def _ask(self, pod: Key, *orders: dict[str, Any]) -> list[Answer]:
        said = str(pod)
        if said in (CLIENT, CALLER):
            if said not in self.askers:
                self.askers[said] = Asker.start(self.mesh.state, said)
            return self.askers[said].ask(list(orders))
        asker = Asker.start(self.mesh.state, said)
        try:
            return asker.ask(list(orders))
        finally:
            asker.close()

    def enter(self, path: str, host: str) -> tuple[int, Any]:
        """Status and body of a request that comes from outside, through the gateway's port 80."""
        order = {"url": f"http://{host}{path}"}

        def ask() -> Answer:
            try:
                status, body = self.mesh.get(path, {"host": host})
            except OSError as error:
                return {"error": str(error)}
            return {"status": status, "body": body}

        answer = ask()
        self.explained.compare(request_of(self.gateway, order), order, [answer], lambda: [ask()])
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["status"], answer["body"]

    @property
    def gateway(self) -> Key:
        """The pod of the ingress gateway."""
        return find_pod(self.engine, "mesh/gateway")

    def get(self, url: str, pod: str = CLIENT, **order: Any) -> Answer:
        return self.ask(pod, {"url": url, **order})[0]

    def many(self, url: str, times: int, pod: str = CLIENT, **order: Any) -> list[Answer]:
        return self.ask(pod, {"url": url, "times": times, **order})

    def lines(self, host: str, port: int, pod: str = CLIENT, *, first: bool = False) -> Answer:
        """What the app `lines` says: its greeting, and `a line` sent back. `first`: the client does not wait for it."""
        return self.ask(pod, {"tcp": [host, port], "send": "a line", "first": first})[0]

    def inside(self, pod: str, *argv: str, container: str = "") -> str:
        """The output of a command in the pod."""
        return run_in_pod(self.engine, find_pod(self.engine, pod), container, list(argv))

    def agent(self, pod: str, *words: str) -> str:
        """The output of `heddle-agent WORDS` in the pod's sidecar."""
        return self.inside(pod, "heddle-agent", *words, container="istio-proxy")

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

    def write(self, name: str, *documents: Mapping[str, Any], settle: bool = True) -> dict[str, Any]:
        """Make `documents` a file of manifests, or what it holds; the status once pods and proxies have all of it."""
        # The marker makes every write a change, also where nothing of it can be used.
        mark = thing("ConfigMap", f"mark-{name}", namespace="plain", data={"mark": str(time.monotonic_ns())})
        path, before = str(self.mesh.manifests / name), max((each["number"] for each in self._changes()), default=0)
        self.mesh.write(name, yaml.safe_dump_all([*documents, mark], sort_keys=False))
        # Not the last change alone: half a second later what the file no longer holds is deleted, a change of its own.
        eventually(
            lambda: any(each["number"] > before and path in each["files"] for each in self._changes()),
            f"{name} is not read",
        )
        new = {_named(document) for document in documents}
        self._await_gone(self.written.get(name, set()) - new)
        self.written[name] = new
        for kind in {kind for kind, *_ in new} & DISCOVERED:
            self._await_applied(kind)
        if not settle:
            return {}
        self._await_there({(namespace, name) for kind, namespace, name in new if kind == "Pod"})
        return self.settle()

    def _await_there(self, pods: set[tuple[str, str]]) -> None:
        """Wait until the engine has them: the webhook is asked about each of them after its file is read."""
        eventually(
            lambda: pods <= {(pod["namespace"], pod["name"]) for pod in self.engine.get("/status")["pods"]},
            f"{pods} are not there",
        )

    def _await_gone(self, things: set[tuple[str, str, str]]) -> None:
        """Wait until the engine has deleted them: it does not do so at once, for the file may be half saved."""
        for kind in {kind for kind, *_ in things}:
            eventually(
                lambda kind=kind: not things & {_named({**raw, "kind": kind}) for raw in self.objects(kind)},
                f"{things} are not deleted",
            )

    def _changes(self) -> list[dict[str, Any]]:
        changes: list[dict[str, Any]] = self.engine.get("/status")["changes"]
        return changes

    def _await_applied(self, kind: str) -> None:
        """Wait for the newest object of the kind: others that are newer may reach discovery before it."""
        versions = [int(raw["metadata"]["resourceVersion"]) for raw in self.objects(kind)]
        if versions:
            path = f"/v1/status?observed={max(versions)}&kind={kind}&wait=20"
            assert self.engine.discovery(path)["applied"], f"the new {kind} is not applied"

    def settle(self) -> dict[str, Any]:
        """Wait until workloads have the pods that they ask for, no pod is ending, and all proxies are current."""
        eventually(self._as_asked, "workloads do not have their pods")
        return self.mesh.settle()

    def _as_asked(self) -> bool:
        engine = self.engine.get("/status")
        if engine["pending"] or any(pod["status"] == "Terminating" for pod in engine["pods"]):
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
    began = time.monotonic()
    while not (found := check()):
        waited = time.monotonic() - began
        assert waited < seconds, complaint
        time.sleep(0.02 if waited < 0.5 else 0.1)
    return found


# ---- manifests

_VERSIONS = {
    "PeerAuthentication": "security.istio.io/v1",
    "VirtualService": "networking.istio.io/v1",
    "DestinationRule": "networking.istio.io/v1",
    "Gateway": "networking.istio.io/v1",
    "Telemetry": "telemetry.istio.io/v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
}


def thing(kind: str, name: str, spec: Mapping[str, Any] | None = None, namespace: str = "mesh", **top: Any) -> Answer:
    """A document: `spec` and whatever stands beside it (`data`, or more `metadata`)."""
    metadata = {"name": name, "namespace": namespace, **top.pop("metadata", {})}
    document = {"apiVersion": _VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata, **top}
    return document if spec is None else {**document, "spec": dict(spec)}


def echo(
    name: str, labels: Mapping[str, str], *, annotations: Any = None, container: Any = None, **spec: Any
) -> Answer:
    """A Pod with the app `echo` on 8080 (`web`) and 8081; `container` and `spec` replace or add fields."""
    app = {
        "name": "echo",
        "image": "test/echo:1",
        "args": ["8080", "8081"],
        "env": [{"name": "VERSION", "value": name}],
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1},
        **(container or {}),
    }
    metadata = {"labels": dict(labels), "annotations": dict(annotations or {})}
    return thing("Pod", name, {"serviceAccountName": "echo", "containers": [app], **spec}, metadata=metadata)


# Every request is a connection of its own: those that are open stay open.
ONE_REQUEST = thing(
    "DestinationRule",
    "case",
    {
        "host": "echo.mesh.svc.cluster.local",
        "trafficPolicy": {"connectionPool": {"http": {"maxRequestsPerConnection": 1}}},
    },
)


def _named(document: Mapping[str, Any]) -> tuple[str, str, str]:
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]
