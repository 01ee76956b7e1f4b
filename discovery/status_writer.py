"""Writes the status of Istio's objects, behind everything else: looks once in a while whether something changed, and
writes what it finds at a bounded pace. Of several replicas the one that holds the Lease writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gevent
import structlog

from discovery import proxy_configs
from discovery.findings import Finding
from discovery.hub import Hub
from discovery.object_status import Seen, status_of
from discovery.peers import Peers, Tally, united
from discovery.plan.memo import changed_keys
from discovery.tally import Count, Member, Thing, tally
from kube.client import Client
from kube.leader import Leader
from kube.source import list_path
from kube.write_behind import WriteBehind
from mesh.objects import Key
from mesh.snapshot import Snapshot

LOOK_SECONDS = 1.0
QUIET_LOOKS = 60
"""While nothing changes, only each of so many looks goes through all objects: a write may have been refused."""
WRITES_PER_SECOND = 25.0
MOST_WAITING = 20_000

log = structlog.get_logger("discovery")


class Objects(Protocol):
    """Istio's objects as the API server has them, and what is wrong with them."""

    def seen(self) -> Mapping[Thing, Seen]:
        """All of them, those that could not be read too."""

    def findings(self) -> list[Finding]:
        """Of objects as they are."""


class Since:
    """In which generation of the hub each object became what it is."""

    def __init__(self) -> None:
        self._last = Snapshot()
        self.of: dict[Thing, int] = {}

    def published(self, generation: int, snapshot: Snapshot) -> None:
        for kind, objects in snapshot.istio.items():
            for key in changed_keys(self._last.of(kind), objects):
                thing = Thing(kind, *key)
                if key in objects:
                    self.of[thing] = generation
                else:
                    self.of.pop(thing, None)
        self._last = snapshot


class Tallies:
    """What the proxies of this replica have. `members` and their plans' findings are asked for when needed."""

    def __init__(
        self, hub: Hub, objects: Objects, members: Callable[[], list[tuple[Member, tuple[Finding, ...]]]]
    ) -> None:
        self._hub, self._objects, self._members = hub, objects, members
        self._since = Since()
        hub.on_publish(lambda moment: self._since.published(moment.generation, moment.snapshot))

    def now(self) -> tuple[Tally, list[Finding]]:
        """The counts, and what is wrong with objects by themselves and in plans."""
        members, moment = self._members(), self._hub.moment
        in_plans = {id(found): found for _, found in members}  # most plans have the same
        findings = [*self._objects.findings(), *(one for found in in_plans.values() for one in found)]
        counts = tally((member for member, _ in members), self._since.of)
        if moment is not None:
            counts |= proxy_configs.counts(moment.snapshot, (Key(*member.pod.split("/")) for member, _ in members))
            findings += proxy_configs.findings(moment.snapshot)
        seen = self._objects.seen()
        own = {thing: (seen[thing].generation, count) for thing, count in counts.items() if thing in seen}
        return own, findings

    def mark(self) -> object:
        """Equal as long as no proxy came, went, applied or refused anything."""
        return [(member.pod, member.generation, member.applied) for member, _ in self._members()]


class StatusWriter:
    """`wall`: RFC 3339."""

    def __init__(
        self,
        hub: Hub,
        objects: Objects,
        tallies: Tallies,
        peers: Peers,
        client: Client,
        leader: Leader,
        wall: Callable[[], str],
    ) -> None:
        self._hub, self._objects, self._tallies, self._peers = hub, objects, tallies, peers
        self._client, self._leader, self._wall = client, leader, wall
        self._mark: object = None
        self._quiet = 0
        self._queue: WriteBehind[tuple[Seen, dict[str, Any]]] = WriteBehind(
            "status of Istio's objects", self._write, limit=MOST_WAITING, per_second=WRITES_PER_SECOND
        )

    def start(self) -> None:
        """From now on, write whenever this replica leads."""
        self._leader.start()
        self._queue.start()
        gevent.spawn(self._run)

    def stop(self) -> None:
        """Leave it to another replica."""
        self._leader.stop()

    def _run(self) -> None:
        while not self._hub.closing:
            gevent.sleep(LOOK_SECONDS)
            moment = self._hub.moment
            if not self._leader.leads or moment is None:
                self._mark = None
                continue
            try:
                others = self._peers.tallies(moment.snapshot)
                mark = (moment.generation, self._tallies.mark(), others)
                self._quiet = self._quiet + 1 if mark == self._mark else 0
                if self._quiet % QUIET_LOOKS == 0:
                    self._look(others)
                    self._mark = mark
            except Exception:  # the next look may go better
                log.exception("status of objects not worked out")

    def _look(self, others: list[Tally]) -> None:
        own, findings = self._tallies.now()
        by_thing: dict[Thing, set[Finding]] = {}
        for finding in findings:
            by_thing.setdefault(Thing(finding.kind, finding.namespace, finding.name), set()).add(finding)
        now = self._wall()
        for number, (thing, seen) in enumerate(list(self._objects.seen().items())):
            count = Count() if seen.planned else united(own, others, thing, seen.generation)
            status = status_of(seen, by_thing.get(thing, ()), count, now)
            if status is not None:
                self._queue.offer(thing, (seen, status))
            if number % 100 == 99:
                gevent.sleep(0)

    def _write(self, item: tuple[Seen, dict[str, Any]]) -> None:
        if not self._leader.leads:
            return
        seen, status = item
        path = list_path(seen.kind.group, seen.kind.versions[0], seen.kind.plural, seen.key.namespace)
        self._client.apply(
            f"{path}/{seen.key.name}/status",
            {
                "apiVersion": seen.kind.api_version,
                "kind": seen.kind.kind,
                "metadata": {"name": seen.key.name, "namespace": seen.key.namespace, "uid": seen.uid},
                "status": status,
            },
        )
