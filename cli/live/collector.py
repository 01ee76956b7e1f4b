"""Reads a mesh again and again, and keeps the newest picture of it.

Whoever does not answer, or not in time, is shown as such and holds nobody up: each proxy is asked by itself, and not
again before it has answered or failed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from cli.live.changes import Taken, changes, remembered, taken
from cli.live.picture import Asked, Read, picture
from cli.live.samples import Sample, parse
from cli.live.source import Source
from cli.live.traffic import Window, edges, newest
from cli.proxies import Proxy
from mesh.errors import HeddleError
from mesh.objects import Key

WINDOW_SECONDS = 10.0
"""Rates are over the samples of a proxy that are no further apart. Envoy adds up its histograms every 5 s."""
STALE_SECONDS = 15.0
"""After which what a proxy counted says nothing of now; a busy one may well answer late."""
ANSWER_SECONDS = 3.0
"""That a round waits for proxies; what comes later is in the next picture."""
AT_ONCE = 8
LONGEST_ROUND_SECONDS = 30.0
"""Within which everyone has been asked, also in a large mesh."""

T = TypeVar("T")


class Collector:
    """Of one mesh. `clock` gives seconds since 1970; `monotonic` those that rates are made of."""

    def __init__(
        self,
        source: Source,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._answer_seconds, self._clock, self._monotonic = source, answer_seconds, clock, monotonic
        self._lock = threading.Condition()
        self._stopped = threading.Event()
        self._samples: dict[Key, Sequence[tuple[float, Sample]]] = {}
        self._due: dict[Key, float] = {}
        """Who is to be asked, or being asked, since when."""
        self._asked: dict[Key, float] = {}
        self._failures: dict[Key, str] = {}
        self._orders: queue.SimpleQueue[Proxy] = queue.SimpleQueue()
        self._workers = 0
        self._proxies: Sequence[Proxy] = ()
        self._moments: frozenset[Taken] = frozenset()
        self._picture: Mapping[str, Any] = {}

    def newest(self, wait_seconds: float = 0.0) -> Mapping[str, Any]:
        """The newest picture; empty while there is none, after waiting for the first one so long."""
        with self._lock:
            self._lock.wait_for(lambda: bool(self._picture), wait_seconds)
            return self._picture

    def follow(self, seconds: float) -> None:
        """`refresh` in a thread of its own until `stop`, with so many seconds from one beginning to the next."""
        threading.Thread(target=self._follow, args=(seconds,), name="picture", daemon=True).start()

    def _follow(self, seconds: float) -> None:
        while not self._stopped.is_set():
            began = self._monotonic()
            self.refresh()
            self._stopped.wait(max(0.0, began + seconds - self._monotonic()))

    def stop(self) -> None:
        """`follow` ends after the picture that is being made."""
        self._stopped.set()

    def refresh(self) -> Mapping[str, Any]:
        """Read everything once; the picture of it. The first one is shown before proxies are asked."""
        troubles: list[str] = []
        proxies = _tried(self._source.proxies, "the pods", troubles)
        self._proxies = self._proxies if proxies is None else proxies
        status = _tried(self._source.status, "the status", troubles)
        certificates = _tried(self._source.certificates, "the certificates", troubles)
        rotation = _tried(self._source.rotation, "the rotation", troubles)
        if status:
            self._moments = remembered(self._moments | taken(status["proxies"]))
        if not self._picture:
            self._publish(status, certificates, rotation, troubles)
        self._ask()
        return self._publish(status, certificates, rotation, troubles)

    def _ask(self) -> None:
        """Every proxy that is not being asked already, until all have answered or the time is over."""
        with self._lock:
            present = {proxy.pod for proxy in self._proxies}
            for gone in self._samples.keys() - present:
                del self._samples[gone]
            for proxy in self._proxies:
                if proxy.pod not in self._due:
                    self._due[proxy.pod] = self._monotonic()
                    self._orders.put(proxy)
            while self._workers < min(AT_ONCE, len(self._due)):
                self._workers += 1
                threading.Thread(target=self._work, name="samples", daemon=True).start()
            self._lock.wait_for(lambda: not self._due, self._answer_seconds)

    def _work(self) -> None:
        while True:
            proxy = self._orders.get()
            with self._lock:
                self._asked[proxy.pod] = self._monotonic()
            failure, sample = "", None
            try:
                sample = parse(self._source.metrics(proxy))
            except (HeddleError, OSError) as error:
                failure = str(error) or type(error).__name__
            with self._lock:
                del self._due[proxy.pod], self._asked[proxy.pod]
                self._failures[proxy.pod] = failure
                if sample is not None:
                    kept = self._samples.get(proxy.pod, ())
                    self._samples[proxy.pod] = newest([*kept, (self._monotonic(), sample)], WINDOW_SECONDS)
                self._lock.notify_all()

    def _publish(
        self,
        status: Mapping[str, Any] | None,
        certificates: Sequence[Mapping[str, Any]] | None,
        rotation: Mapping[str, Any] | None,
        troubles: Sequence[str],
    ) -> Mapping[str, Any]:
        with self._lock:
            now = self._monotonic()
            asked = [Asked(each.pod, _name(each), self._silent(each.pod, now)) for each in self._proxies]
            windows = [
                Window(samples)
                for pod, samples in self._samples.items()
                if not self._failures.get(pod) and now - samples[-1][0] <= STALE_SECONDS
            ]
        found = picture(
            Read(
                at=self._clock(),
                status=status,
                certificates=certificates,
                rotation=rotation,
                proxies=asked,
                edges=edges(windows),
                changes=changes(self._moments),
                troubles=troubles,
            )
        )
        with self._lock:
            self._picture = found
            self._lock.notify_all()
        return found

    def _silent(self, pod: Key, now: float) -> str:
        """Why nothing is known of the proxy; empty while it answers, or has not been asked for long."""
        waits = now - self._asked.get(pod, now)
        if waits >= self._answer_seconds:
            return f"it has not answered for {waits:.0f} s"
        waits = now - self._due.get(pod, now)
        if waits >= LONGEST_ROUND_SECONDS:
            return f"it has not been asked for {waits:.0f} s, since others do not answer"
        return self._failures.get(pod, "")


def _name(proxy: Proxy) -> str:
    return f"{proxy.workload.namespace}/{proxy.workload.name}"


def _tried(read: Callable[[], T], what: str, troubles: list[str]) -> T | None:
    try:
        return read()
    except HeddleError as error:
        troubles.append(f"{what} cannot be read: {error}")
        return None
