"""The engine's socket for the `heddle` command, with the real store and components and made-up pods and services."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import control
from local.components import Component, Components
from local.store import Store
from mesh.errors import NotFound, Unavailable


class Operator:
    """Answers what a test put in `answers`, by service and path; first what is `in_turn`, one after the other."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.in_turn: dict[str, list[tuple[int, object]]] = {}
        self.asked: list[str] = []
        self.sent: list[Any] = []
        self.answering: Any = None  # somebody real to ask instead

    def get(self, service: str, path: str) -> tuple[int, bytes]:
        if self.answering:
            return self.answering.get(service, path)
        self.asked.append(f"{service}{path}")
        if service not in ("discovery", "ca"):
            raise NotFound(f"there is no service {service!r} to ask", hint="discovery or ca")
        where = f"{service}{path.partition('?')[0]}"
        if self.in_turn.get(where):
            self.answers[where] = self.in_turn[where].pop(0)
        answer = self.answers.get(where)
        if answer is None:
            raise Unavailable(f"the {service} does not answer: refused")
        code, body = answer
        return code, body if isinstance(body, bytes) else json.dumps(body).encode()

    def post(self, service: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self.answering:
            return self.answering.post(service, path, body)
        self.sent.append(json.loads(body))
        return self.get(service, path)


class CommandServer:
    """Listens on `<state>/engine.sock`. `state` must be short: a socket's path has at most 107 bytes."""

    def __init__(self, state: Path) -> None:
        numbers = itertools.count(1)
        self.state = state
        self.store = Store(uid=lambda: f"uid-{next(numbers)}", now=lambda: "2026-01-01T00:00:00Z")
        listed = [Component(name, ["sleep", "1000"], {}) for name in ("ca", "webhook", "discovery")]
        (state / "logs").mkdir()
        self.components = Components(listed, state / "logs")
        self.operator = Operator()
        self.captured: list[tuple[str, str, str]] = []
        self.downs = 0
        self.on_down: Callable[[], None] = lambda: None
        self.problems: list[str] = []
        self.failure: Exception | None = None
        self.pods: list[dict[str, Any]] = []
        app = control.create_app(
            self.store,
            self.components,
            self.operator,  # type: ignore[arg-type]
            status=self._status,
            log_path=self._log_path,
            capture=self._capture,
            down=self._down,
        )
        control.serve_in_thread(app, state / "engine.sock")

    def add_pod(self, namespace: str, name: str) -> None:
        self.pods.append(
            {
                "namespace": namespace,
                "name": name,
                "ready": "2/2",
                "status": "Running",
                "restarts": 0,
                "ip": "10.244.1.1",
                "created": "2026-01-01T00:00:00Z",
                "message": "",
                "settled": True,
            }
        )

    def _status(self) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        return {
            "pods": self.pods,
            "pending": [],
            "components": self.components.states(),
            "published": [{"hostPort": 8080, "servicePort": 80}, {"hostPort": 8443, "servicePort": 443}],
            "problems": self.problems,
            "resourceVersion": self.store.version,
            "changes": [],
        }

    def _log_path(self, namespace: str, pod: str, container: str) -> Path:
        if container not in ("", "app"):
            raise NotFound(f"pod {pod} has no container {container!r}")
        return self.state / "logs" / f"{namespace}-{pod}.log"

    def _capture(self, namespace: str, pod: str, verb: str) -> dict[str, Any]:
        self.captured.append((namespace, pod, verb))
        return {"started": verb == "start"}

    def _down(self) -> None:
        self.downs += 1
        self.on_down()
