"""A steady stream of requests, counted: for the demo, and for whoever wants to see what a change does to traffic."""

from __future__ import annotations

import collections
import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_SECONDS = 10.0


@dataclass(slots=True)
class Counts:
    """What came back: `answers` by what `label` made of each good one, `failures` by their words."""

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.answers.total() + self.failures.total()

    def add(self, other: Counts) -> None:
        self.answers += other.answers
        self.failures += other.failures
        self.seconds += other.seconds

    def quantile(self, part: float) -> float:
        """Seconds within which `part` of the answers came; 0 without any."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Load:
    """Requests to `http://host:port/path` from some keep-alive connections, until `stop` or `requests` are sent.

    Each connection asks as fast as it is answered, or `pause` seconds after an answer. As a context manager it ends
    with the block, whichever way that is left.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str,
        label: Callable[[Any], str],
        *,
        connections: int = 4,
        requests: int = 0,
        pause: float = 0.0,
    ) -> None:
        self._target, self._path, self._label = (host, port), path, label
        self._left = requests or 1 << 62
        self._pause = pause
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._counts = Counts()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]

    def start(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Counts:
        """End the stream after the requests that are on their way; what was counted."""
        self._stop.set()
        return self.wait()

    def wait(self) -> Counts:
        """The counts, when all requests are sent."""
        for thread in self._threads:
            thread.join()
        return self._counts

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0 and not self._stop.is_set()

    def _run(self) -> None:
        counts = Counts()
        connection = http.client.HTTPConnection(*self._target, timeout=TIMEOUT_SECONDS)
        while self._take():
            self._stop.wait(self._pause)
            began = time.perf_counter()
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                counts.failures[f"{type(error).__name__}: {error}"] += 1
                connection.close()
                time.sleep(0.01)
                continue
            took = time.perf_counter() - began
            if answer.status != 200:
                counts.failures[f"status {answer.status}"] += 1
                continue
            try:
                counts.answers[self._label(json.loads(body))] += 1
                counts.seconds.append(took)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                counts.failures[f"an answer that is not the app's: {type(error).__name__}: {error}"] += 1
        connection.close()
        with self._lock:
            self._counts.add(counts)
