"""Every request of these tests is explained too (`discovery.explain`), and compared with what came back.

An explanation is of the objects as they are; a proxy may be behind them, and endpoints come and go while a test waits
for it. So what does not agree is asked again, until it does. What cannot agree, since it is not in the objects (a
control plane that is down, a revoked certificate), is said by who asks: `outside`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cli.mesh_access import Mesh
from cli.mesh_objects import embedded_objects, events_of
from discovery.explain.explain import explain
from discovery.explain.model import Branch, Explanation, Part, Request, Result, Transport
from discovery.plan.memo import Scopes
from discovery.snapshots import SnapshotBuilder, settings_of
from mesh.objects import Key
from mesh.snapshot import Snapshot

Answer = dict[str, Any]
AGREE_SECONDS = 30.0
XFCC = "x-forwarded-client-cert"


@dataclass
class Explained:
    """Compares answers with explanations; `agreed` counts them."""

    engine: Mesh
    agreed: int = 0
    _outside: str = ""
    _version: int = -1
    _snapshot: Snapshot = field(default_factory=Snapshot)
    _builder: SnapshotBuilder = field(default_factory=lambda: SnapshotBuilder(settings_of()))
    _scopes: Scopes = field(default_factory=Scopes)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def outside(self, why: str) -> Iterator[None]:
        """What is asked meanwhile depends on something that no object says: `why`."""
        assert why
        self._outside = why
        try:
            yield
        finally:
            self._outside = ""

    def compare(
        self,
        request: Request,
        order: Answer,
        answers: list[Answer],
        again: Callable[[], list[Answer]],
        seconds: float = AGREE_SECONDS,
    ) -> None:
        """AssertionError when what comes back is not what the objects say, for longer than proxies need to follow."""
        if self._outside:
            return
        until = time.monotonic() + seconds
        while wrong := self._disagreement(request, order, answers):
            if "fail=" in order.get("url", ""):  # it counts its requests: asking again is another question
                break
            assert time.monotonic() < until, wrong
            time.sleep(0.05)
            answers = again()
        assert not wrong, wrong
        self.agreed += len(answers)

    def _disagreement(self, request: Request, order: Answer, answers: list[Answer]) -> str:
        with self._lock:
            snapshot = self._current()
            if request.client not in snapshot.pods:
                return f"{request.client} is no pod any more" if answers else ""
            told = explain(snapshot, request, self._scopes)
        for answer in answers:
            if not any(_fits(told, branch, order, answer) for branch in told.branches):
                return f"{order}\nanswered {answer}\nexplained as {told}"
        return ""

    def _current(self) -> Snapshot:
        version = int(self.engine.get("/status")["resourceVersion"])
        if version != self._version:
            for event in events_of(embedded_objects(self.engine)):
                self._builder.apply(event)
            self._snapshot, self._version = self._builder.build(), version
        return self._snapshot


def request_of(client: Key, order: Answer) -> Request:
    """An order of apps/ask.py as a request."""
    if "tcp" in order:
        host, port = order["tcp"]
        return Request(client, host, port)
    url = urlsplit(order["url"])
    headers = {name.lower(): value for name, value in order.get("headers", {}).items()}
    authority = headers.pop("host", "")
    return Request(
        client=client,
        host=url.hostname or "",
        port=url.port or 80,
        path=(url.path or "/") + (f"?{url.query}" if url.query else ""),
        method=order.get("method", "GET"),
        headers=tuple(headers.items()),
        authority=authority,
    )


def _fits(told: Explanation, branch: Branch, order: Answer, answer: Answer) -> bool:
    outcome = branch.outcome
    if outcome.result is Result.SERVED:
        return _served(branch, answer) or _too_late(told, order, answer) or _too_much(branch, answer)
    if outcome.status:
        return answer.get("status") == outcome.status and not _pod(answer)
    return "error" in answer or ("status" not in answer and not answer.get("body"))


def _served(branch: Branch, answer: Answer) -> bool:
    pod = _pod(answer)
    if not pod:  # an app that does not say who it is: one outside, or one that took the bytes and said nothing yet
        return not all("/" in workload for workload in branch.workloads) and "status" in answer
    if pod not in {workload.rpartition("/")[2] for workload in branch.workloads}:
        return False
    if "status" not in answer:
        return True
    shown = XFCC in answer["body"]["headers"]
    read = any(step.part is Part.INBOUND and "of the pod is http" in step.says for step in branch.steps)
    return shown == (branch.transport is Transport.MUTUAL and read)


def _pod(answer: Answer) -> str:
    """Who answered: the apps echo and lines say it."""
    body = answer.get("body")
    if isinstance(body, dict):
        return str(body.get("pod", ""))
    greeting = answer.get("greeting") or ""
    return greeting.removeprefix("hello from ") if greeting.startswith("hello from ") else ""


def _too_late(told: Explanation, order: Answer, answer: Answer) -> bool:
    """An app that is asked to sleep longer than the route waits."""
    limited = any(
        step.part is Part.ROUTE and ("timeout" in step.says or "each within" in step.says) for step in told.steps
    )
    return answer.get("status") == 504 and "sleep=" in order.get("url", "") and limited


def _too_much(branch: Branch, answer: Answer) -> bool:
    """More at once than the destination's limits let through."""
    limited = any(step.part is Part.DESTINATION and "with limits" in step.says for step in branch.steps)
    return limited and answer.get("status") == 503 and "x-envoy-overloaded" in answer.get("headers", {})
