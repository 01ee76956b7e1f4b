"""From the API server's events to published snapshots: changes that come together are published together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gevent
from gevent.event import Event as GeventEvent

from discovery.findings import Finding
from discovery.gateway_secrets import GatewaySecrets
from discovery.hub import Hub
from discovery.metrics import Metrics
from discovery.object_status import Seen
from discovery.snapshots import SnapshotBuilder
from discovery.tally import Thing
from kube.source import Event, Source

QUIET_SECONDS = 0.001
"""A change is published when nothing else came for so long ..."""
LONGEST_SECONDS = 0.02
"""... or so long after the first."""
SECRETS_SECONDS = 10.0
"""The first snapshot waits so long for the Secrets of gateways."""


class Feed:
    """Call `start` once. `clock`: monotonic seconds."""

    def __init__(
        self,
        source: Source,
        secrets: Callable[[Callable[[Event], None]], GatewaySecrets],
        hub: Hub,
        metrics: Metrics,
        clock: Callable[[], float],
        builder: SnapshotBuilder,
    ) -> None:
        self._source, self._hub, self._metrics, self._clock = source, hub, metrics, clock
        self._builder = builder
        self._secrets = secrets(self._take)
        self._news = GeventEvent()
        self._events = 0
        self._kinds: set[str] = set()
        self._arrived = 0.0

    @property
    def synced(self) -> bool:
        """Whether there is a snapshot that everything was read for."""
        return self._hub.moment is not None

    def seen(self) -> Mapping[Thing, Seen]:
        """Istio's objects as the API server has them."""
        return self._builder.seen

    def findings(self) -> list[Finding]:
        """What is wrong with objects, and with reading them."""
        found = list(self._builder.findings)
        for kind, error in self._source.troubles().items():
            said, hint = error.message, error.hint or ""
            found.append(Finding(kind, "", "", "", said, hint, "what was known of this kind stays in force"))
        found.extend(self._secrets.findings())
        return found

    def start(self) -> None:
        """Read everything, then follow."""
        gevent.spawn(self._run)
        self._source.start(self._take)

    def _take(self, event: Event) -> None:
        if not self._news.is_set():
            self._arrived = self._clock()
        self._builder.apply(event)
        self._metrics.event(event)
        self._events += 1
        self._kinds.add(event.kind)
        self._news.set()

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._settle()
            self._news.clear()
            if self._source.synced():
                self._publish()

    def _publish(self) -> None:
        """Whoever is served first by this process must not take Secrets that are on their way for missing."""
        began, kinds = self._clock(), frozenset(self._kinds)
        self._kinds.clear()
        snapshot = self._builder.build()
        self._metrics.published(kinds, began - self._arrived, self._clock() - began)
        self._secrets.follow(snapshot)
        if not self.synced:
            until = self._clock() + SECRETS_SECONDS
            while not self._secrets.settled and self._clock() < until:
                gevent.sleep(QUIET_SECONDS)
            snapshot = self._builder.build()
        self._hub.publish(snapshot, self._builder.versions, self._arrived)

    def _settle(self) -> None:
        """Wait for the end of a burst, not for long."""
        until = self._arrived + LONGEST_SECONDS
        while True:
            before = self._events
            gevent.sleep(QUIET_SECONDS)
            if self._events == before or self._clock() >= until:
                return
